//! Every variable of the deployment, read once into one typed value. All missing or invalid variables are reported at once.
//!
//! A value never appears in an error, because it may be a secret under a wrong name.

use crate::json::strict::follows_grammar;
use crate::json::{Cursor, Value};
use crate::keyed_hash::{hex, keyed_hash};
use crate::money;
use crate::quota::{Policies, Price, Quota, SpendPolicy};
use crate::text_search::{contains, split_once};

/// The platform of a deployment: some variables, defaults and bounds differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// Cloudflare Workers.
    Cloudflare,
    /// Supabase Edge Functions.
    SupabaseEdge,
}

/// The deployment's settings. A test compares them with `docs/configuration.md`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Sign-in and database.
    pub supabase: Supabase,
    /// The model API.
    pub model_api: ModelApi,
    /// The URL under which clients reach the service, without a slash at the end; its path is the base path of every route.
    /// `None`: the origin of each request. Always set on Supabase Edge.
    pub public_url: Option<String>,
    /// The key that proves to the database that a request for user state comes from this service: 32 to 512 visible ASCII
    /// characters. Only on Supabase Edge, and required there.
    pub user_state_key: Option<String>,
    /// Whether a schedule of the database may run the due jobs of a user: the access tokens of generations in progress are then
    /// stored, sealed. Only on Supabase Edge; default false.
    pub wake_up: bool,
    /// The key of every keyed hash: pseudonyms, delimiters, session ids. At least [`SECRET_CHARS_MIN`] characters.
    pub service_secret: String,
    /// The quotas of one user.
    pub rate_limit: Policies,
    /// The quota of GET, DELETE and `/events` of one user, in one isolate.
    pub read_limit: Quota,
    /// The origins of pages that may call from a browser.
    pub allowed_origins: AllowedOrigins,
    /// Whether Supabase's anonymous sign-ins are accepted.
    pub allow_anonymous_users: bool,
    /// The least level that is logged.
    pub log_level: LogLevel,
}

/// The Supabase project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supabase {
    /// `https://….supabase.co`, without a slash at the end.
    pub url: String,
    /// The anon or publishable key: identifies the project, and grants no rights of its own.
    pub anon_key: String,
    /// Only for projects that still sign with HS256.
    pub jwt_secret: Option<String>,
    /// The key set of the sign-in service, where the platform provides it: an object with the list `keys`.
    pub jwks: Option<String>,
}

/// The model API: OpenRouter, or a compatible server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelApi {
    /// Without a slash at the end.
    pub base_url: String,
    /// The API key.
    pub api_key: String,
    /// The first is the default; never empty.
    pub allowed_models: Vec<String>,
    /// Whether the other allowed models are sent as fallbacks.
    pub fallback: bool,
    /// For a whole generation, retries included; 1000 to 600000, default 60000. On Supabase Edge the default is 55000, which is
    /// also the most on the free plan; 180000 on the paid one.
    pub timeout_ms: u64,
    /// Between two reads; 100 to 600000, default 15000.
    pub idle_timeout_ms: u64,
    /// 1 to 10, default 3.
    pub attempts_max: u32,
    /// 1 to 2000, default 20.
    pub candidates_max: usize,
    /// 0 (off) to 86400.
    pub cache_ttl_s: u32,
    /// Whether providers may store requests and train on them; default false.
    pub may_collect_data: bool,
    /// Whether only providers with zero data retention are used; default false.
    pub zero_data_retention: bool,
    /// The most that a provider may charge for a token; `None`: not limited.
    pub max_price: Option<Price>,
}

/// The share of a candidate in `max_tokens`, markup included. A candidate of 300 characters has 100 tokens in English, 300 in a
/// script that the tokenizer hardly covers.
const CANDIDATE_TOKENS_MAX: usize = 400;
/// The share of everything else: prose, fences, and the reasoning of models that bill it as output.
const OTHER_TOKENS_MAX: usize = 1_000;
/// The least output limit among the models that are commonly allowed; providers reject requests above it.
const ANSWER_TOKENS_MAX: usize = 16_000;

/// Returns `max_tokens` for so many candidates: no answer is longer, reasoning included.
#[must_use]
pub fn answer_tokens_max(candidates_max: usize) -> usize {
    let candidates = candidates_max.saturating_mul(CANDIDATE_TOKENS_MAX);
    candidates.saturating_add(OTHER_TOKENS_MAX).min(ANSWER_TOKENS_MAX)
}

/// The origins from which a browser may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// `*`: any page, never with credentials.
    Any,
    /// Only these; may be empty.
    Exactly(Vec<String>),
}

/// The least level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// A line per request.
    Info,
    /// Failures.
    Warn,
    /// Failures that need an operator.
    Error,
}

impl LogLevel {
    /// As in a log line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// The error of one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The name of the variable.
    pub variable: &'static str,
    /// The requirement for its value.
    pub expected: &'static str,
}

/// A deployment with missing or invalid variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misconfigured {
    /// All of them; never empty.
    pub errors: Vec<ConfigError>,
    /// As in [`Config::public_url`], where its own variable is valid: the errors of the service, and the endpoints that work
    /// without a configuration, are under the same URL.
    pub public_url: Option<String>,
}

/// The names of all variables, for the test that compares them with `docs/configuration.md`.
pub const VARIABLES: &[&str] = &[
    "SUPABASE_URL",
    "SUPABASE_ANON_KEY",
    "SUPABASE_PUBLISHABLE_KEYS",
    "SUPABASE_JWKS",
    "SUPABASE_JWT_SECRET",
    "SERVICE_SECRET",
    "PUBLIC_URL",
    "OPENROUTER_API_KEY",
    "OPENROUTER_BASE_URL",
    "ALLOWED_MODELS",
    "ALLOWED_ORIGINS",
    "MAX_CANDIDATES",
    "RATE_LIMIT_BURST",
    "RATE_LIMIT_GENERATIONS",
    "RATE_LIMIT_ATTEMPTS",
    "RATE_LIMIT_READS",
    "RATE_LIMIT_CONCURRENT",
    "RATE_LIMIT_SPEND",
    "AI_TIMEOUT_MS",
    "AI_IDLE_TIMEOUT_MS",
    "AI_MAX_ATTEMPTS",
    "AI_FALLBACK",
    "AI_CACHE_TTL_S",
    "AI_DATA_COLLECTION",
    "AI_ZDR",
    "AI_MAX_PRICE",
    "ALLOW_ANONYMOUS_USERS",
    "LOG_LEVEL",
    "USER_STATE_KEY",
    "JWT_SECRET",
    "EDGE_PLAN",
    "WAKE_UP",
];

const DEFAULT_BASE_URL: &str = "https://openrouter.ai/api/v1";
/// Small, cheap models that honour a strict JSON schema; `wrangler.toml` states the same list.
const DEFAULT_MODELS: &str = "openai/gpt-4o-mini,google/gemini-2.5-flash,anthropic/claude-haiku-4.5,mistralai/mistral-small-3.2-24b-instruct";

/// RFC 2104, section 3, of keys for HMAC: "less than L bytes is strongly discouraged as it would decrease the security
/// strength of the function"; SHA-256 has 32. A shorter secret can be guessed offline with one pseudonym.
pub const SECRET_CHARS_MIN: usize = 32;
/// Separates this hash: no other hash is keyed with the API key itself, and none leaves this service.
const SECRET_LABEL: &[u8] = b"ai-sessions/service-secret\0";

/// The least and the most characters of [`Config::user_state_key`]; the migration that stores the key has the same.
const USER_STATE_KEY_CHARS: std::ops::RangeInclusive<usize> = SECRET_CHARS_MIN..=512;

/// The texts about secrets that differ between the platforms: each names the command that sets the secret.
struct SecretTexts {
    expected: &'static str,
    missing: &'static str,
}

impl SecretTexts {
    const fn of(platform: Platform) -> Self {
        match platform {
            Platform::Cloudflare => Self {
                expected: "must have at least 32 characters; `openssl rand -hex 32` makes one, \
                    `wrangler secret put SERVICE_SECRET` sets it",
                missing: "must be set, because OPENROUTER_API_KEY has fewer than 32 characters and can be guessed; \
                    `openssl rand -hex 32` makes one, `wrangler secret put SERVICE_SECRET` sets it",
            },
            Platform::SupabaseEdge => Self {
                expected: "must have at least 32 characters; \
                    `supabase secrets set SERVICE_SECRET=$(openssl rand -hex 32)` makes and sets one",
                missing: "must be set, because OPENROUTER_API_KEY has fewer than 32 characters and can be guessed; \
                    `supabase secrets set SERVICE_SECRET=$(openssl rand -hex 32)` makes and sets one",
            },
        }
    }
}

/// The bound and the default of `AI_TIMEOUT_MS`, in milliseconds.
struct TimeoutLimits {
    max: u64,
    default: u64,
    expected: &'static str,
}

impl TimeoutLimits {
    const CLOUDFLARE: Self = Self { max: 600_000, default: 60_000, expected: "must be 1000 to 600000" };
    /// An isolate lives 150 s, and gets new requests during the first half: the last one has 75 s for the database, the
    /// generation and the end of the response.
    const FREE: Self = Self {
        max: 55_000,
        default: 55_000,
        expected: "must be 1000 to 55000 with EDGE_PLAN=free: an isolate of the free plan can end 75 s after a request comes in",
    };
    /// The same with 400 s.
    const PAID: Self = Self {
        max: 180_000,
        default: 55_000,
        expected: "must be 1000 to 180000 with EDGE_PLAN=paid: an isolate of the paid plan can end 200 s after a request comes in",
    };
}

const USER_STATE_KEY_EXPECTED: &str = "must be the 32 to 512 visible ASCII characters that `select ai_sessions.set_service_key('…')` \
    has set in the database; `openssl rand -hex 32` makes them, `supabase secrets set USER_STATE_KEY=…` sets them here";
const KEYS_EXPECTED: &str = "must be a JSON object whose `default` is a publishable key";
const JWKS_EXPECTED: &str = "must be a JSON Web Key Set: an object with the list `keys`, or that list";
const PRICE_EXPECTED: &str = "must be US dollars per million tokens in and out, as 1/5: each 0.000001 to 10000, with at most 6 decimals";
const SPEND_EXPECTED: &str = "must be US dollars/seconds, as 0.50/86400: up to 1000000, with at most 9 decimals, in 1 to 2678400 seconds";
const SPEND_TOO_LOW: &str = "must be enough for one generation: 51000 tokens in and max_tokens out at AI_MAX_PRICE, where \
    max_tokens is 400 * MAX_CANDIDATES + 1000, at most 16000";
/// Picodollars a token.
const PRICES: std::ops::RangeInclusive<u64> = 1..=10_000_000_000;
/// Nanodollars.
const SPENDS: std::ops::RangeInclusive<u64> = 1..=1_000_000_000_000_000;
const URL_EXPECTED: &str = "must be an absolute http(s) URL";
const PUBLIC_URL_EXPECTED: &str = "must be an absolute http(s) URL of visible ASCII characters without query, whose path does not begin with a route";
const SET_EXPECTED: &str = "must be set";

/// The path under which Supabase's gateway serves this function.
const FUNCTION_PATH: &str = "/functions/v1/flashcards";
/// The first segments of all routes. A base path that begins with one is ambiguous: a proxy may have removed it already.
const ROUTES: &[&str] = &["ai-sessions", "models", "health", "openapi.json", "docs"];

impl Config {
    /// Reads the settings through `variable`, which returns the text of a variable, or `None` where it is not set.
    /// A variable of white space alone counts as not set.
    ///
    /// # Errors
    /// [`Misconfigured`] with all missing or invalid variables.
    pub fn read(
        platform: Platform,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Misconfigured> {
        Reader { platform, variable: &variable, errors: Vec::new() }.config()
    }
}

struct Reader<'a> {
    platform: Platform,
    /// One type for the callers of all platforms: the code of this reader is in the module once.
    variable: &'a dyn Fn(&str) -> Option<String>,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    fn config(mut self) -> Result<Config, Misconfigured> {
        let reader = &mut self;
        let is_edge = reader.platform == Platform::SupabaseEdge;
        let timeout = reader.timeout_limits();
        let url = reader.url("SUPABASE_URL", None);
        let candidates_max = reader.number("MAX_CANDIDATES", 1, 2000, 20, "must be 1 to 2000");
        let max_price = reader.max_price();
        let config = Config {
            public_url: reader.public_url(&url),
            user_state_key: is_edge.then(|| reader.user_state_key()),
            wake_up: is_edge && reader.switch("WAKE_UP"),
            supabase: Supabase {
                url,
                anon_key: reader.anon_key(),
                // There, the platform reserves all names with its prefix.
                jwt_secret: reader.text(if is_edge { "JWT_SECRET" } else { "SUPABASE_JWT_SECRET" }),
                jwks: reader.jwks(),
            },
            model_api: ModelApi {
                base_url: reader.url("OPENROUTER_BASE_URL", Some(DEFAULT_BASE_URL)),
                api_key: reader.key("OPENROUTER_API_KEY"),
                allowed_models: reader.models(),
                fallback: reader.switch("AI_FALLBACK"),
                timeout_ms: reader.number(
                    "AI_TIMEOUT_MS",
                    1000,
                    timeout.max,
                    timeout.default,
                    timeout.expected,
                ),
                idle_timeout_ms: reader.number(
                    "AI_IDLE_TIMEOUT_MS",
                    100,
                    600_000,
                    15_000,
                    "must be 100 to 600000",
                ),
                attempts_max: reader.number("AI_MAX_ATTEMPTS", 1, 10, 3, "must be 1 to 10"),
                candidates_max,
                cache_ttl_s: reader.number("AI_CACHE_TTL_S", 0, 86_400, 0, "must be 0 to 86400"),
                may_collect_data: reader.one_of(
                    "AI_DATA_COLLECTION",
                    ["deny", "allow"],
                    "must be deny or allow",
                ),
                zero_data_retention: reader.switch("AI_ZDR"),
                max_price,
            },
            service_secret: reader.secret(),
            rate_limit: Policies {
                burst: reader.quota("RATE_LIMIT_BURST", Quota { count: 10, window_s: 60 }),
                generations: reader.quota("RATE_LIMIT_GENERATIONS", Quota { count: 50, window_s: 86_400 }),
                attempts: reader.quota("RATE_LIMIT_ATTEMPTS", Quota { count: 150, window_s: 86_400 }),
                concurrent: reader.number("RATE_LIMIT_CONCURRENT", 1, 100, 2, "must be 1 to 100"),
                spend: reader.spend(max_price, candidates_max),
            },
            read_limit: reader.quota("RATE_LIMIT_READS", Quota { count: 300, window_s: 60 }),
            allowed_origins: reader.origins(),
            allow_anonymous_users: reader.switch("ALLOW_ANONYMOUS_USERS"),
            log_level: reader.log_level(),
        };
        if self.errors.is_empty() {
            return Ok(config);
        }
        Err(Misconfigured { errors: self.errors, public_url: config.public_url })
    }

    fn reject(&mut self, variable: &'static str, expected: &'static str) {
        self.errors.push(ConfigError { variable, expected });
    }

    fn text(&self, variable: &'static str) -> Option<String> {
        let text = (self.variable)(variable)?;
        let text = bare(&text);
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Reads a value that is sent in a header.
    fn key(&mut self, variable: &'static str) -> String {
        let key = self.required(variable);
        if !fits_into_a_header(&key) {
            self.reject(variable, "must be one line of ASCII characters");
        }
        key
    }

    /// Reads the project's key: the default publishable key where the platform provides one, else the anon key.
    fn anon_key(&mut self) -> String {
        const VARIABLE: &str = "SUPABASE_PUBLISHABLE_KEYS";
        match self.text(VARIABLE).map(|text| default_key(&text)) {
            Some(Ok(Some(key))) => return key,
            Some(Err(NotValid)) => {
                self.reject(VARIABLE, KEYS_EXPECTED);
                return String::new();
            }
            None | Some(Ok(None)) => {}
        }
        self.key("SUPABASE_ANON_KEY")
    }

    fn jwks(&mut self) -> Option<String> {
        const VARIABLE: &str = "SUPABASE_JWKS";
        match key_set(self.text(VARIABLE)?) {
            Ok(document) => Some(document),
            Err(NotValid) => {
                self.reject(VARIABLE, JWKS_EXPECTED);
                None
            }
        }
    }

    fn user_state_key(&mut self) -> String {
        const VARIABLE: &str = "USER_STATE_KEY";
        let key = self.text(VARIABLE).unwrap_or_default();
        if !USER_STATE_KEY_CHARS.contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.reject(VARIABLE, USER_STATE_KEY_EXPECTED);
        }
        key
    }

    /// Reads the service's own URL; that of the function on Supabase Edge by default.
    fn public_url(&mut self, supabase_url: &str) -> Option<String> {
        const VARIABLE: &str = "PUBLIC_URL";
        let Some(text) = self.text(VARIABLE) else {
            let is_edge = self.platform == Platform::SupabaseEdge;
            return (is_edge && is_url(supabase_url)).then(|| [supabase_url, FUNCTION_PATH].concat());
        };
        let text = text.trim_end_matches('/').to_owned();
        // The URL is sent in a header, and is a part of JSON documents.
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !br#""\<>"#.contains(&byte));
        let path = base_path(&text);
        let first = path.split('/').nth(1).unwrap_or_default();
        if !is_url(&text) || !is_plain || contains(path, "//") || ROUTES.contains(&first) {
            self.reject(VARIABLE, PUBLIC_URL_EXPECTED);
            return None;
        }
        Some(text)
    }

    fn timeout_limits(&mut self) -> TimeoutLimits {
        match self.platform {
            Platform::Cloudflare => TimeoutLimits::CLOUDFLARE,
            Platform::SupabaseEdge => {
                let is_paid = self.one_of("EDGE_PLAN", ["free", "paid"], "must be free or paid");
                if is_paid { TimeoutLimits::PAID } else { TimeoutLimits::FREE }
            }
        }
    }

    fn required(&mut self, variable: &'static str) -> String {
        self.text(variable).unwrap_or_else(|| {
            self.reject(variable, SET_EXPECTED);
            String::new()
        })
    }

    /// Reads the secret, or derives it from an API key of sufficient length.
    fn secret(&mut self) -> String {
        const VARIABLE: &str = "SERVICE_SECRET";
        let texts = SecretTexts::of(self.platform);
        let is_long = |secret: &String| secret.chars().count() >= SECRET_CHARS_MIN;
        match (self.text(VARIABLE), self.text("OPENROUTER_API_KEY")) {
            (Some(secret), _) if is_long(&secret) => return secret,
            (Some(_), _) => self.reject(VARIABLE, texts.expected),
            (None, Some(api_key)) if is_long(&api_key) => {
                return hex(&keyed_hash(&api_key, &[SECRET_LABEL]));
            }
            (None, Some(_)) => self.reject(VARIABLE, texts.missing),
            // The missing API key is reported already.
            (None, None) => {}
        }
        String::new()
    }

    fn url(&mut self, variable: &'static str, default: Option<&str>) -> String {
        let Some(text) = self.text(variable).or_else(|| default.map(str::to_owned)) else {
            self.reject(variable, SET_EXPECTED);
            return String::new();
        };
        let text = text.trim_end_matches('/').to_owned();
        if !is_url(&text) {
            self.reject(variable, URL_EXPECTED);
        }
        text
    }

    fn number<T: TryFrom<u64>>(
        &mut self,
        variable: &'static str,
        min: u64,
        max: u64,
        default: T,
        expected: &'static str,
    ) -> T {
        let Some(text) = self.text(variable) else { return default };
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        if let Some(number) = number.and_then(|number| T::try_from(number).ok()) {
            return number;
        }
        self.reject(variable, expected);
        default
    }

    fn switch(&mut self, variable: &'static str) -> bool {
        self.one_of(variable, ["0", "1"], "must be 0 or 1")
    }

    /// Whether the value is the second one; the first one is the default.
    fn one_of(&mut self, variable: &'static str, [first, second]: [&str; 2], expected: &'static str) -> bool {
        match self.text(variable) {
            Some(text) if text == second => true,
            Some(text) if text != first => {
                self.reject(variable, expected);
                false
            }
            _ => false,
        }
    }

    fn quota(&mut self, variable: &'static str, default: Quota) -> Quota {
        let Some(text) = self.text(variable) else { return default };
        let quota = text.split_once('/').and_then(|(count, window_s)| {
            let count = count.parse().ok().filter(|count| (1..=1_000_000).contains(count))?;
            let window_s = window_s.parse().ok().filter(|window_s| (1..=2_678_400).contains(window_s))?;
            Some(Quota { count, window_s })
        });
        quota.unwrap_or_else(|| {
            self.reject(variable, "must be count/seconds: 1 to 1000000 in 1 to 2678400 seconds");
            default
        })
    }

    fn max_price(&mut self) -> Option<Price> {
        const VARIABLE: &str = "AI_MAX_PRICE";
        let text = self.text(VARIABLE)?;
        let price = |text| money::read(text, money::PRICE).filter(|price| PRICES.contains(price));
        let read = text.split_once('/').and_then(|(prompt, completion)| {
            Some(Price { prompt: price(prompt)?, completion: price(completion)? })
        });
        if read.is_none() {
            self.reject(VARIABLE, PRICE_EXPECTED);
        }
        read
    }

    /// Reads the limit in money, which must be enough for one generation: no request would ever be accepted.
    fn spend(&mut self, max_price: Option<Price>, candidates_max: usize) -> Option<SpendPolicy> {
        const VARIABLE: &str = "RATE_LIMIT_SPEND";
        let text = self.text(VARIABLE)?;
        let read = text.split_once('/').and_then(|(dollars, window_s)| {
            let limit = money::read(dollars, money::NANODOLLAR).filter(|limit| SPENDS.contains(limit))?;
            let window_s = window_s.parse().ok().filter(|window_s| (1..=2_678_400).contains(window_s))?;
            Some((limit, window_s))
        });
        let Some((limit, window_s)) = read else {
            self.reject(VARIABLE, SPEND_EXPECTED);
            return None;
        };
        let Some(price) = max_price else {
            // An invalid price is reported already.
            if self.text("AI_MAX_PRICE").is_none() {
                self.reject("AI_MAX_PRICE", "must be set, because RATE_LIMIT_SPEND needs it");
            }
            return None;
        };
        let answer_tokens_max = u64::try_from(answer_tokens_max(candidates_max)).unwrap_or(u64::MAX);
        let policy = SpendPolicy { limit, window_s, price, answer_tokens_max };
        if limit < policy.largest_cost() {
            self.reject(VARIABLE, SPEND_TOO_LOW);
        }
        Some(policy)
    }

    fn models(&mut self) -> Vec<String> {
        const VARIABLE: &str = "ALLOWED_MODELS";
        // Only here an empty variable differs from a missing one: an empty list does not mean the default list.
        let text = (self.variable)(VARIABLE).unwrap_or_else(|| DEFAULT_MODELS.to_owned());
        let mut models: Vec<String> = Vec::new();
        for model in list(&text) {
            if model.chars().count() > 200 || model.chars().any(|c| c.is_whitespace() || c.is_control()) {
                self.reject(VARIABLE, "must be model ids of at most 200 characters without white space");
                return Vec::new();
            }
            if !models.iter().any(|known| known == model) {
                models.push(model.to_owned());
            }
        }
        if models.is_empty() {
            self.reject(VARIABLE, "must name at least one model");
        }
        models
    }

    fn origins(&mut self) -> AllowedOrigins {
        const VARIABLE: &str = "ALLOWED_ORIGINS";
        let text = self.text(VARIABLE).unwrap_or_default();
        if text == "*" {
            return AllowedOrigins::Any;
        }
        let mut origins = Vec::new();
        for origin in list(&text) {
            let Some(origin) = as_browsers_write(origin) else {
                self.reject(
                    VARIABLE,
                    "must be * alone, or exact origins such as https://cards.example or capacitor://localhost",
                );
                break;
            };
            origins.push(origin);
        }
        AllowedOrigins::Exactly(origins)
    }

    fn log_level(&mut self) -> LogLevel {
        match self.text("LOG_LEVEL").as_deref() {
            Some("debug") => LogLevel::Debug,
            None | Some("info") => LogLevel::Info,
            Some("warn") => LogLevel::Warn,
            Some("error") => LogLevel::Error,
            Some(_) => {
                self.reject("LOG_LEVEL", "must be debug, info, warn or error");
                LogLevel::Info
            }
        }
    }
}

/// A variable's value is not valid.
struct NotValid;

/// Whether the text can be the value of a header.
fn fits_into_a_header(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|host| !host.is_empty() && !host.starts_with('/') && !host.contains([' ', '?', '#']))
}

/// The base path of a public URL: `https://host/base` → `/base`; empty for an origin.
#[must_use]
pub fn base_path(url: &str) -> &str {
    let (_, rest) = split_once(url, "://").unwrap_or(("", url));
    rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default()
}

/// The default key of `{"default":"sb_publishable_…"}`; `None` where the project has none.
fn default_key(text: &str) -> Result<Option<String>, NotValid> {
    let mut default = Value::Missing;
    for_each_member(text, &mut |name, value| {
        if name == b"default" {
            default = value;
        }
    })?;
    match default {
        Value::Missing | Value::Bare(b"null") => Ok(None),
        value => {
            let key = value.as_str().map(bare).filter(|key| !key.is_empty() && fits_into_a_header(key));
            key.map(|key| Some(key.to_owned())).ok_or(NotValid)
        }
    }
}

/// A key set as an object with the list `keys`. Supabase's own library also reads the list alone.
fn key_set(text: String) -> Result<String, NotValid> {
    if text.starts_with('[') {
        check_json(&text)?;
        return Ok(["{\"keys\":", &text, "}"].concat());
    }
    let mut lists = 0_u32;
    for_each_member(&text, &mut |name, value| {
        let is_list = name == b"keys" && matches!(value, Value::List(_));
        lists = lists.saturating_add(u32::from(is_list));
    })?;
    if lists == 1 { Ok(text) } else { Err(NotValid) }
}

fn check_json(text: &str) -> Result<(), NotValid> {
    if follows_grammar(text.as_bytes()) { Ok(()) } else { Err(NotValid) }
}

/// Reads the members of a JSON object.
fn for_each_member<'a>(text: &'a str, on: &mut dyn FnMut(&'a [u8], Value<'a>)) -> Result<(), NotValid> {
    // The cursor alone accepts what careless servers send.
    check_json(text)?;
    if !text.starts_with('{') {
        return Err(NotValid);
    }
    Cursor::new(text.as_bytes()).object(&mut |name, cursor| on(name, cursor.value()));
    Ok(())
}

/// Schemes whose documents have no origin: browsers send `null` for them, or no header.
const WITHOUT_ORIGIN: &[&str] = &["about", "blob", "data", "file", "javascript", "vbscript", "view-source"];

/// Normalizes an origin to the value of the header `Origin`: `scheme://host` or `scheme://host:port`, of a page or of an app
/// (`capacitor://localhost`, `chrome-extension://…`). Browsers write the scheme in lower case, and the host, too, for a
/// "special scheme" of the URL Standard; other schemes have an "opaque host", which stays unchanged.
/// `trap_guard.js` does the same.
fn as_browsers_write(origin: &str) -> Option<String> {
    let (scheme, host) = split_once(origin, "://")?;
    let scheme = scheme.to_ascii_lowercase();
    let is_of = |text: &str, others: &[u8]| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
    };
    if !is_of(&scheme, b"+-.") || !is_of(host, b"-._:[]") || WITHOUT_ORIGIN.contains(&scheme.as_str()) {
        return None;
    }
    let is_web = scheme == "http" || scheme == "https";
    Some(if is_web { origin.to_ascii_lowercase() } else { [&scheme, "://", host].concat() })
}

/// Removes the line ends and the byte order mark that files and pipes add around a value.
fn bare(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('\u{feff}').unwrap_or(text).trim()
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(bare).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &[(&str, &str)] = &[
        ("SUPABASE_URL", "https://project.supabase.co/"),
        ("SUPABASE_ANON_KEY", "anon"),
        ("OPENROUTER_API_KEY", API_KEY),
    ];
    /// The shortest key from which the secret is derived.
    const API_KEY: &str = "sk-or-v1-0123456789abcdef0123456";

    /// The shortest key.
    const STATE_KEY: &str = "0123456789abcdef0123456789abcde!";

    fn read(more: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
        read_on(Platform::Cloudflare, more)
    }

    /// Reads the settings of a Supabase Edge Function with a key of the user state.
    fn read_edge(more: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
        read_on(Platform::SupabaseEdge, &[more, &[("USER_STATE_KEY", STATE_KEY)]].concat())
    }

    fn read_on(platform: Platform, more: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
        read_whole(platform, more).map_err(|misconfigured| misconfigured.errors)
    }

    fn read_whole(platform: Platform, more: &[(&str, &str)]) -> Result<Config, Misconfigured> {
        Config::read(platform, |name| {
            more.iter().chain(LEAST).find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
        })
    }

    fn is_rejected(variable: &'static str, text: &str) -> bool {
        names_alone(variable, read(&[(variable, text)]))
    }

    /// Whether there are errors, all of them of that variable.
    fn names_alone(variable: &str, read: Result<Config, Vec<ConfigError>>) -> bool {
        read.is_err_and(|errors| errors.iter().all(|error| error.variable == variable))
    }

    #[test]
    fn three_variables_are_enough() {
        let config = read(&[]).expect("the rest has defaults");
        assert_eq!(config.supabase.url, "https://project.supabase.co");
        assert_eq!(config.model_api.base_url, DEFAULT_BASE_URL);
        assert_eq!(config.model_api.allowed_models.len(), 4);
        assert_eq!(config.rate_limit.burst, Quota { count: 10, window_s: 60 });
        assert_eq!(config.rate_limit.generations, Quota { count: 50, window_s: 86_400 });
        assert_eq!(config.rate_limit.attempts, Quota { count: 150, window_s: 86_400 });
        assert_eq!(config.read_limit, Quota { count: 300, window_s: 60 });
        assert_eq!(config.allowed_origins, AllowedOrigins::Exactly(Vec::new()));
    }

    #[test]
    fn all_missing_variables_are_reported_at_once() {
        let missing = |platform| -> Vec<_> {
            let misconfigured = Config::read(platform, |_| None).expect_err("nothing is set");
            assert_eq!(misconfigured.public_url, None);
            misconfigured.errors.iter().map(|error| error.variable).collect()
        };
        assert_eq!(
            missing(Platform::Cloudflare),
            ["SUPABASE_URL", "SUPABASE_ANON_KEY", "OPENROUTER_API_KEY"]
        );
        assert_eq!(
            missing(Platform::SupabaseEdge),
            ["SUPABASE_URL", "USER_STATE_KEY", "SUPABASE_ANON_KEY", "OPENROUTER_API_KEY"]
        );
    }

    #[test]
    fn invalid_values_are_reported() {
        for (variable, texts) in [
            (
                "SUPABASE_URL",
                &["project.supabase.co", "https://", "ftp://a", "https://a b", "https://a?b"][..],
            ),
            ("OPENROUTER_BASE_URL", &["openrouter.ai"]),
            (
                "PUBLIC_URL",
                &[
                    "cards.example",
                    "/functions/v1/flashcards",
                    "https://",
                    "https:///base",
                    "https://a?b",
                    "https://a/b#c",
                    "https://a/b c",
                    "https://a/b\"c",
                    "https://a/b\\c",
                    "https://a/ü",
                    "https://a//b",
                    "https://a/ai-sessions",
                    "https://a/docs/b",
                ],
            ),
            (
                "SUPABASE_PUBLISHABLE_KEYS",
                &[
                    "sb_publishable_1",
                    "\"sb_publishable_1\"",
                    "[\"sb_publishable_1\"]",
                    "{\"default\":\"sb_publishable_1\"",
                    "{\"default\":1}",
                    "{\"default\":\"\"}",
                    "{\"default\":{}}",
                    "{\"default\":\"sb\u{fc}\"}",
                    "{\"default\":\"a\\nb\"}",
                    "{\"default\":NaN}",
                    "null",
                ],
            ),
            (
                "SUPABASE_JWKS",
                &[
                    "https://a/jwks.json",
                    "{}",
                    "{\"keys\":null}",
                    "{\"keys\":{}}",
                    "{\"keys\":[}",
                    "{\"keys\":[]",
                    "{\"keys\":[],\"keys\":[]}",
                    "[",
                    "[{]",
                    "null",
                    "\"a\"",
                ],
            ),
            (
                "SERVICE_SECRET",
                &["secret", "0123456789abcdef0123456789abcde", " 0123456789abcdef0123456789abcde\n"],
            ),
            ("ALLOWED_MODELS", &["", " , ", "a b"]),
            (
                "ALLOWED_ORIGINS",
                &[
                    "cards.example",
                    "https://",
                    "https://a/",
                    "https://a/b",
                    "https://a?b",
                    "https://a#b",
                    "https://a b",
                    "https://u@a",
                    "https://*.a",
                    "https://*",
                    "*,https://a",
                    "https://a,*",
                    "null",
                    "https://a,null",
                    "://a",
                    "a b://c",
                    "*://localhost",
                    "capacitor:localhost",
                    "capacitor://",
                    "capacitor://localhost/",
                    "capacitor://localhost/index.html",
                    "capacitor://*",
                    "chrome-extension://*",
                    "chrome-extension://abcdefghijklmnopabcdefghijklmnop/popup.html",
                    "tauri://localhost?x",
                    "javascript://a",
                    "JavaScript://a",
                    "javascript:alert(1)",
                    "data://a",
                    "data:text/html,x",
                    "file://",
                    "file://a",
                    "blob:https://a",
                    "blob://a",
                    "about:blank",
                    "about://blank",
                    "view-source://a",
                ],
            ),
            ("MAX_CANDIDATES", &["0", "2001", "-1", "x", "1.5"]),
            (
                "RATE_LIMIT_BURST",
                &["10", "0/60", "10/0", "0/0", "1000001/60", "10/2678401", "10/-1", "a/b", "10/60/60"],
            ),
            ("RATE_LIMIT_GENERATIONS", &["50/"]),
            ("RATE_LIMIT_ATTEMPTS", &["0/86400", "150/0", "150"]),
            ("RATE_LIMIT_READS", &["0/60", "300/0", "1000001/60"]),
            ("RATE_LIMIT_CONCURRENT", &["0", "101"]),
            (
                "AI_MAX_PRICE",
                &["1", "1/", "/5", "0/5", "1/0", "-1/5", "1/5/9", "1.0000001/5", "10001/5", "1e1/5", "x/5"],
            ),
            (
                "RATE_LIMIT_SPEND",
                &["0.5", "0/60", "0.5/0", "1000001/60", "-1/60", "x/60", "1/2678401", "1/60/60"],
            ),
            ("AI_TIMEOUT_MS", &["999", "600001", "-5"]),
            ("AI_IDLE_TIMEOUT_MS", &["99"]),
            ("AI_MAX_ATTEMPTS", &["0", "11"]),
            ("AI_FALLBACK", &["yes"]),
            ("AI_CACHE_TTL_S", &["86401"]),
            ("AI_DATA_COLLECTION", &["1", "true", "Deny", "deny,allow"]),
            ("AI_ZDR", &["true", "2"]),
            ("ALLOW_ANONYMOUS_USERS", &["true"]),
            ("LOG_LEVEL", &["loud"]),
        ] {
            for text in texts {
                assert!(is_rejected(variable, text), "{variable}={text:?}");
            }
        }
    }

    #[test]
    fn a_limit_in_money_needs_a_price() {
        let config = read(&[]).expect("it is off by default");
        assert_eq!((config.rate_limit.spend, config.model_api.max_price), (None, None));

        let price = Price { prompt: 75_000, completion: 5_000_000 };
        let config = read(&[("AI_MAX_PRICE", "0.075/5")]).expect("a price alone is valid");
        assert_eq!((config.rate_limit.spend, config.model_api.max_price), (None, Some(price)));

        let both = [("RATE_LIMIT_SPEND", "0.50/86400"), ("AI_MAX_PRICE", "0.075/5")];
        let config = read(&both).expect("both are valid");
        let (limit, window_s, answer_tokens_max) = (500_000_000, 86_400, 9_000);
        assert_eq!(config.rate_limit.spend, Some(SpendPolicy { limit, window_s, price, answer_tokens_max }));
        assert_eq!(config.model_api.max_price, Some(price));

        let rejected = |more: &[(&str, &str)]| -> Vec<_> {
            let errors = read(more).expect_err("one is missing or invalid");
            errors.iter().map(|error| (error.variable, error.expected)).collect()
        };
        assert_eq!(
            rejected(&[("RATE_LIMIT_SPEND", "0.50/86400")]),
            [("AI_MAX_PRICE", "must be set, because RATE_LIMIT_SPEND needs it")]
        );
        assert_eq!(rejected(&[both[0], ("AI_MAX_PRICE", "1")]), [("AI_MAX_PRICE", PRICE_EXPECTED)]);
    }

    #[test]
    fn a_limit_in_money_must_be_enough_for_one_generation() {
        // (51000 tokens in + 9000 out) * 1 dollar per million.
        let with = |spend| read(&[("AI_MAX_PRICE", "1/1"), ("RATE_LIMIT_SPEND", spend)]);
        assert!(with("0.06/60").is_ok());
        let errors = with("0.059999999/60").expect_err("one generation can cost more");
        let too_low = ConfigError { variable: "RATE_LIMIT_SPEND", expected: SPEND_TOO_LOW };
        assert_eq!(errors, [too_low]);
    }

    #[test]
    fn the_secret_is_set_or_derived_from_a_long_api_key() {
        let secret = |more: &[(&str, &str)]| read(more).map(|config| config.service_secret);
        let own = "0123456789abcdef0123456789abcdef";
        assert_eq!(secret(&[("SERVICE_SECRET", &[own, "\r\n"].concat())]), Ok(own.to_owned()));
        assert_eq!(secret(&[("SERVICE_SECRET", own), ("OPENROUTER_API_KEY", "ollama")]), Ok(own.to_owned()));

        assert_eq!(API_KEY.len(), SECRET_CHARS_MIN);
        let derived = secret(&[]).expect("the API key is long enough");
        assert_eq!(derived.len(), 64);
        assert!(!derived.contains(API_KEY));
        assert_eq!(secret(&[]), Ok(derived.clone()), "it is the same after a restart");
        assert_ne!(secret(&[("OPENROUTER_API_KEY", &API_KEY.replace('6', "7"))]), Ok(derived));

        let short = API_KEY.get(1..).expect("it is ASCII");
        for api_key in ["ollama", short, &[short, "\n"].concat()] {
            let errors = read(&[("OPENROUTER_API_KEY", api_key)]).expect_err("it can be guessed");
            let [error] = errors.as_slice() else { panic!("{errors:?}") };
            assert_eq!(error.variable, "SERVICE_SECRET");
            assert!(error.expected.contains("OPENROUTER_API_KEY") && error.expected.contains("openssl rand"));
        }
    }

    #[test]
    fn the_error_of_a_secret_has_the_command_of_the_platform() {
        for (platform, command, other) in [
            (Platform::Cloudflare, "`wrangler secret put SERVICE_SECRET`", "supabase"),
            (Platform::SupabaseEdge, "`supabase secrets set SERVICE_SECRET=", "wrangler"),
        ] {
            for more in [("SERVICE_SECRET", "short"), ("OPENROUTER_API_KEY", "ollama")] {
                let errors =
                    read_on(platform, &[more, ("USER_STATE_KEY", STATE_KEY)]).expect_err("it is weak");
                let [error] = errors.as_slice() else { panic!("{errors:?}") };
                assert_eq!(error.variable, "SERVICE_SECRET");
                assert!(error.expected.contains(command), "{}", error.expected);
                assert!(!error.expected.contains(other), "{}", error.expected);
            }
        }
    }

    #[test]
    fn the_public_url_has_a_base_path() {
        for (text, url, base) in [
            (
                "https://cards.example/functions/v1/flashcards/\n",
                "https://cards.example/functions/v1/flashcards",
                "/functions/v1/flashcards",
            ),
            ("http://127.0.0.1:8787/base", "http://127.0.0.1:8787/base", "/base"),
            ("https://cards.example//", "https://cards.example", ""),
            ("https://cards.example/docs-and-more", "https://cards.example/docs-and-more", "/docs-and-more"),
        ] {
            for read in [read, read_edge] {
                let config = read(&[("PUBLIC_URL", text)]).expect("it is a URL");
                assert_eq!(
                    (config.public_url.as_deref(), config.public_url.as_deref().map_or("", base_path)),
                    (Some(url), base)
                );
            }
        }
        let config = read(&[]).expect("the least is enough");
        assert_eq!(
            (config.public_url.as_deref(), config.public_url.as_deref().map_or("", base_path)),
            (None, "")
        );
        let config = read_edge(&[]).expect("the least is enough");
        assert_eq!(config.public_url.as_deref(), Some("https://project.supabase.co/functions/v1/flashcards"));
    }

    #[test]
    fn the_public_url_is_known_although_another_variable_is_invalid() {
        let public_url = |platform, more: &[(&str, &str)]| {
            let misconfigured = read_whole(platform, &[more, &[("LOG_LEVEL", "loud")]].concat());
            misconfigured.expect_err("one variable is invalid").public_url
        };
        let (url, default) = ("https://a/b", "https://project.supabase.co/functions/v1/flashcards");
        for (platform, default) in [(Platform::Cloudflare, None), (Platform::SupabaseEdge, Some(default))] {
            assert_eq!(public_url(platform, &[]).as_deref(), default);
            assert_eq!(public_url(platform, &[("PUBLIC_URL", url)]).as_deref(), Some(url));
            assert_eq!(public_url(platform, &[("PUBLIC_URL", "b")]), None);
        }
        assert_eq!(public_url(Platform::SupabaseEdge, &[("SUPABASE_URL", "project")]), None);
    }

    #[test]
    fn the_key_of_the_user_state_has_32_to_512_visible_characters() {
        let read = |key: &str| {
            let read = read_on(Platform::SupabaseEdge, &[("USER_STATE_KEY", key)]);
            read.map(|config| config.user_state_key)
        };
        for key in [STATE_KEY.to_owned(), "~".repeat(512)] {
            assert_eq!(read(&key), Ok(Some(key.clone())));
            assert_eq!(read(&[&key, "\n"].concat()), Ok(Some(key)));
        }
        let with_space = STATE_KEY.replace('!', " 1");
        for key in [
            "",
            " ",
            &"a".repeat(31),
            &"a".repeat(513),
            &with_space,
            &"\u{e9}".repeat(32),
            &"a\u{7f}".repeat(20),
        ] {
            let errors = read(key).expect_err("it is no key");
            let [error] = errors.as_slice() else { panic!("{errors:?}") };
            assert_eq!(error.variable, "USER_STATE_KEY");
            assert!(error.expected.contains("ai_sessions.set_service_key"));
        }
    }

    #[test]
    fn variables_of_supabase_edge_are_not_read_on_cloudflare() {
        let edge = [("USER_STATE_KEY", "short"), ("JWT_SECRET", "s"), ("EDGE_PLAN", "x"), ("WAKE_UP", "1")];
        assert_eq!(read(&edge), read(&[]));
        assert_eq!(read(&[]).map(|config| config.user_state_key), Ok(None));
    }

    #[test]
    fn the_wake_up_is_off_unless_it_is_set() {
        let wake_up = |text: &str| read_edge(&[("WAKE_UP", text)]).map(|config| config.wake_up);
        assert_eq!((wake_up(""), wake_up("0"), wake_up("1")), (Ok(false), Ok(false), Ok(true)));
        for text in ["2", "true", "yes"] {
            assert!(names_alone("WAKE_UP", read_edge(&[("WAKE_UP", text)])), "{text}");
        }
    }

    #[test]
    fn the_shared_secret_has_another_name_on_supabase_edge() {
        let both = [("SUPABASE_JWT_SECRET", "one"), ("JWT_SECRET", "two")];
        let secret = |config: Config| config.supabase.jwt_secret;
        assert_eq!(read(&both).map(secret), Ok(Some("one".to_owned())));
        assert_eq!(read_edge(&both).map(secret), Ok(Some("two".to_owned())));
        assert_eq!(read_edge(&[("SUPABASE_JWT_SECRET", "one")]).map(secret), Ok(None));
    }

    #[test]
    fn the_life_of_an_isolate_bounds_the_timeout() {
        let timeout_ms = |more: &[(&str, &str)]| read_edge(more).map(|config| config.model_api.timeout_ms);
        assert_eq!(timeout_ms(&[]), Ok(55_000));
        assert_eq!(timeout_ms(&[("EDGE_PLAN", "paid")]), Ok(55_000));
        assert_eq!(read(&[]).map(|config| config.model_api.timeout_ms), Ok(60_000));
        assert_eq!(
            read(&[("AI_TIMEOUT_MS", "600000")]).map(|config| config.model_api.timeout_ms),
            Ok(600_000)
        );
        for (plan, max_ms, rest) in [("free", 55_000, "75 s"), ("paid", 180_000, "200 s")] {
            let with = |timeout_ms: u64| {
                read_edge(&[("EDGE_PLAN", plan), ("AI_TIMEOUT_MS", &timeout_ms.to_string())])
                    .map(|config| config.model_api.timeout_ms)
            };
            assert_eq!((with(1000), with(max_ms)), (Ok(1000), Ok(max_ms)));
            for timeout_ms in [999, max_ms + 1] {
                let errors = with(timeout_ms).expect_err("it is outside the limits");
                let [error] = errors.as_slice() else { panic!("{errors:?}") };
                assert_eq!(error.variable, "AI_TIMEOUT_MS");
                assert!(error.expected.contains(rest) && error.expected.contains(&max_ms.to_string()));
            }
        }
        for plan in ["pro", "Free", "1"] {
            assert!(names_alone("EDGE_PLAN", read_edge(&[("EDGE_PLAN", plan)])), "{plan}");
        }
    }

    #[test]
    fn a_publishable_key_precedes_the_anon_key() {
        let key = |text: &str| {
            let read = [read, read_edge].map(|read| read(&[("SUPABASE_PUBLISHABLE_KEYS", text)]));
            read.map(|read| read.map(|config| config.supabase.anon_key))
        };
        let both = |key: &str| [Ok(key.to_owned()), Ok(key.to_owned())];
        assert_eq!(
            key(r#"{"web":"sb_publishable_2","default":"sb_publishable_1"}"#),
            both("sb_publishable_1")
        );
        assert_eq!(key(" {\"default\" : \"sb_publishable_1 \"}\n"), both("sb_publishable_1"));
        for without in ["", "{}", r#"{"default":null}"#, r#"{"web":"sb_publishable_2"}"#] {
            assert_eq!(key(without), both("anon"), "{without}");
        }
        let keys = ("SUPABASE_PUBLISHABLE_KEYS", r#"{"default":"sb_publishable_1"}"#);
        assert!(read(&[keys, ("SUPABASE_ANON_KEY", "")]).is_ok(), "the anon key is not required beside it");
        assert!(names_alone(
            "SUPABASE_ANON_KEY",
            read(&[("SUPABASE_PUBLISHABLE_KEYS", "{}"), ("SUPABASE_ANON_KEY", "")])
        ));
    }

    #[test]
    fn a_key_set_is_an_object_or_a_list() {
        let jwks = |text: &str| read(&[("SUPABASE_JWKS", text)]).map(|config| config.supabase.jwks);
        for (text, expected) in [
            (r#"{"keys":[{"kid":"a"}],"more":{}}"#, r#"{"keys":[{"kid":"a"}],"more":{}}"#),
            ("{\"keys\":[]}\n", "{\"keys\":[]}"),
            (r#"[{"kid":"a"}]"#, r#"{"keys":[{"kid":"a"}]}"#),
            ("[]", "{\"keys\":[]}"),
        ] {
            assert_eq!(jwks(text), Ok(Some(expected.to_owned())));
        }
        assert_eq!(jwks(" "), Ok(None));
    }

    #[test]
    fn origins_are_normalized_as_browsers_send_them() {
        let text = "https://Cards.example:8443, Capacitor://localhost,tauri://localhost,ionic://localhost,http://[::1]:3000,\
            chrome-extension://abcdefghijklmnopabcdefghijklmnop,moz-extension://5d3e2c1b-0000-4000-8000-00000000000a,\
            app://obsidian.md,app://.,com.example.App://Main\r\n";
        let expected = [
            "https://cards.example:8443",
            "capacitor://localhost",
            "tauri://localhost",
            "ionic://localhost",
            "http://[::1]:3000",
            "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
            "moz-extension://5d3e2c1b-0000-4000-8000-00000000000a",
            "app://obsidian.md",
            "app://.",
            "com.example.app://Main",
        ];
        let origins = read(&[("ALLOWED_ORIGINS", text)]).map(|config| config.allowed_origins);
        assert_eq!(origins, Ok(AllowedOrigins::Exactly(expected.map(str::to_owned).to_vec())));
    }

    #[test]
    fn white_space_and_marks_around_a_value_are_ignored() {
        let expected = read(&[]).expect("the least is enough");
        for (before, after) in
            [("", "\n"), ("", "\r\n"), ("\u{feff}", " \r\n"), ("\t ", "\u{a0}\n\n"), (" \u{feff} ", "")]
        {
            let around = |text: &str| [before, text, after].concat();
            let more: Vec<_> = LEAST.iter().map(|(name, text)| (*name, around(text))).collect();
            let more: Vec<_> = more.iter().map(|(name, text)| (*name, text.as_str())).collect();
            assert_eq!(read(&more), Ok(expected.clone()), "{before:?} {after:?}");
        }
        let slashes = read(&[
            ("SUPABASE_URL", "https://project.supabase.co/ \n"),
            ("OPENROUTER_BASE_URL", "http://a/v1//\r\n"),
        ]);
        let slashes = slashes.expect("both are URLs");
        assert_eq!(
            (&*slashes.supabase.url, &*slashes.model_api.base_url),
            ("https://project.supabase.co", "http://a/v1")
        );
        for inside in
            ["sk-one\nsk-two-0123456789abcdef0123456789", "sk-\u{2019}0123456789abcdef0123456789abcdef"]
        {
            assert!(is_rejected("OPENROUTER_API_KEY", inside), "{inside:?} fits into no header");
        }
        assert!(is_rejected("SUPABASE_ANON_KEY", "one\r\ntwo"));
    }

    #[test]
    fn set_variables_replace_the_defaults() {
        let config = read(&[
            ("ALLOWED_MODELS", " b/two, a/one ,b/two"),
            ("ALLOWED_ORIGINS", "https://Cards.example, http://localhost:4321"),
            ("RATE_LIMIT_BURST", "1000000/2678400"),
            ("RATE_LIMIT_CONCURRENT", "1"),
            ("AI_TIMEOUT_MS", "1000"),
            ("AI_FALLBACK", "1"),
            ("LOG_LEVEL", "warn"),
            ("SUPABASE_JWT_SECRET", " "),
        ])
        .expect("all values are valid");
        assert_eq!(config.model_api.allowed_models, ["b/two", "a/one"]);
        assert_eq!(
            config.allowed_origins,
            AllowedOrigins::Exactly(vec![
                "https://cards.example".to_owned(),
                "http://localhost:4321".to_owned()
            ])
        );
        assert_eq!(config.rate_limit.burst, Quota { count: 1_000_000, window_s: 2_678_400 });
        assert_eq!(config.rate_limit.concurrent, 1);
        assert_eq!(config.model_api.timeout_ms, 1000);
        assert!(config.model_api.fallback);
        assert_eq!(config.log_level, LogLevel::Warn);
        assert!(!config.model_api.may_collect_data && !config.model_api.zero_data_retention);
        let other = read(&[("AI_DATA_COLLECTION", "allow"), ("AI_ZDR", "1")]).expect("both are valid");
        assert!(other.model_api.may_collect_data && other.model_api.zero_data_retention);
        assert_eq!(read(&[("AI_DATA_COLLECTION", "deny"), ("AI_ZDR", "0")]), read(&[]));
        assert_eq!(config.supabase.jwt_secret, None);
        assert_eq!(
            read(&[("ALLOWED_ORIGINS", "*")]).map(|config| config.allowed_origins),
            Ok(AllowedOrigins::Any)
        );
    }
}
