// The types that Grafana publishes for its JSON model (npm package @grafana/schema), for a dashboard as JSON: an enum's value is a
// word there.

import type { Dashboard, FieldConfigSource, Panel } from '@grafana/schema';
import type { Options as StatOptions } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type { Options as TableOptions } from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type { FieldConfig as TimeSeriesFieldConfig, Options as TimeSeriesOptions } from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** A query of the ClickHouse plugin by Altinity; the schema leaves it to the plugin. */
type Target = {
  refId: string;
  datasource: DataSource;
  query: string;
  rawQuery: true;
  editorMode: 'sql';
  format: 'time_series' | 'table';
  dateTimeType: 'DATETIME';
  dateTimeColDataType: 'timestamp';
  round: string;
  intervalFactor: number;
};

type DataSource = { type: 'vertamedia-clickhouse-datasource'; uid: '${datasource}' };

type Of<Type extends string, Options, FieldConfig = Record<never, never>> = Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets' | 'datasource'> & {
  type: Type;
  options: Options;
  fieldConfig: Omit<FieldConfigSource, 'defaults'> & { defaults: Omit<FieldConfigSource['defaults'], 'custom'> & { custom?: FieldConfig } };
  targets: Target[];
  datasource: DataSource;
};

type AnyPanel = Of<'timeseries', TimeSeriesOptions, TimeSeriesFieldConfig> | Of<'stat', StatOptions> | Of<'table', TableOptions>;

/** The same in JSON: the values of enums in place of the enums. */
type InJson<T> = T extends string ? `${T}` : T extends number | boolean | null | undefined ? T : T extends readonly (infer Item)[] ? InJson<Item>[] : T extends object ? { [Member in keyof T]: InJson<T[Member]> } : T;

export type DashboardInJson = InJson<Omit<Dashboard, 'panels'> & { panels: AnyPanel[] }>;
