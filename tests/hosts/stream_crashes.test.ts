// `kill -9` of workerd while streams are open.

import { onWorkerd } from './crash_host.ts';
import { crashedStreams } from './open_stream_crashes.ts';

crashedStreams(onWorkerd);
