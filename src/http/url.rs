//! The parts of an absolute URL.

use crate::text_search::split_once;

/// `https://host/path?query` → (`https://host`, `/path`).
#[must_use]
pub fn split_url(url: &str) -> (&str, &str) {
    let after_scheme = split_once(url, "://").map_or(0, |(_, rest)| url.len().saturating_sub(rest.len()));
    let host_end = url.get(after_scheme..).and_then(|rest| rest.find(['/', '?', '#']));
    let at = host_end.map_or(url.len(), |end| after_scheme.saturating_add(end));
    let (origin, rest) = url.split_at_checked(at).unwrap_or((url, ""));
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    (origin, if path.is_empty() { "/" } else { path })
}

/// `https://host/path?query#fragment` → `query`.
#[must_use]
pub fn query_of(url: &str) -> &str {
    let url = url.split('#').next().unwrap_or_default();
    url.split_once('?').map_or("", |(_, query)| query)
}

/// `https://host/first/path?query` → `https://host/path?query`: a URL as it is under the base path `/first`.
#[must_use]
pub fn without_first_segment(url: &str) -> String {
    let (origin, path) = split_url(url);
    let rest = url.get(origin.len()..).unwrap_or_default();
    let segment = path.strip_prefix('/').and_then(|path| path.split('/').next()).unwrap_or_default();
    let rest = rest.strip_prefix('/').and_then(|rest| rest.strip_prefix(segment)).unwrap_or(rest);
    [origin, if rest.starts_with('/') { "" } else { "/" }, rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_into_origin_and_path() {
        for (url, origin, path) in [
            ("https://a.example/b?c", "https://a.example", "/b"),
            ("http://127.0.0.1:8787/", "http://127.0.0.1:8787", "/"),
            ("https://a.example", "https://a.example", "/"),
            ("https://a.example?x=/y", "https://a.example", "/"),
            ("", "", "/"),
        ] {
            assert_eq!(split_url(url), (origin, path), "{url}");
        }
    }

    #[test]
    fn a_query_ends_at_the_fragment() {
        for (url, query) in [
            ("https://a.example/b?c=d&e", "c=d&e"),
            ("https://a.example/b?c#d?e", "c"),
            ("https://a.example/b#d?e", ""),
            ("https://a.example/b", ""),
        ] {
            assert_eq!(query_of(url), query, "{url}");
        }
    }

    #[test]
    fn the_first_segment_is_removed_and_the_query_kept() {
        for (url, without) in [
            ("https://a.example/slug/ai-sessions?b=c/d", "https://a.example/ai-sessions?b=c/d"),
            ("https://a.example/slug/ai-sessions/1/events", "https://a.example/ai-sessions/1/events"),
            ("https://a.example/slug/", "https://a.example/"),
            ("https://a.example/slug", "https://a.example/"),
            ("https://a.example/slug?b=/c", "https://a.example/?b=/c"),
            ("https://a.example//slug/b", "https://a.example/slug/b"),
            ("https://a.example/", "https://a.example/"),
            ("https://a.example", "https://a.example/"),
            ("https://a.example/sl%2Fug/b", "https://a.example/b"),
            ("", "/"),
        ] {
            assert_eq!(without_first_segment(url), without, "{url}");
        }
    }
}
