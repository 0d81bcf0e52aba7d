//! The table of routes.

use crate::text_search::split_once;

/// Every route. A path has a row for each of its methods.
pub const TABLE: &[(&str, &str, Route)] = &[
    ("POST", "/ai-sessions", Route::CreateSession),
    ("GET", "/ai-sessions", Route::ListSessions),
    ("GET", "/ai-sessions/{id}", Route::ReadSession),
    ("GET", "/ai-sessions/{id}/events", Route::SessionEvents),
    ("DELETE", "/ai-sessions/{id}", Route::StopSession),
    ("GET", "/models", Route::Models),
    ("GET", "/health", Route::Health),
    ("GET", "/health/ready", Route::Ready),
    ("GET", "/openapi.json", Route::Openapi),
    ("GET", "/docs", Route::Docs),
];

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `POST /ai-sessions`
    CreateSession,
    /// `GET /ai-sessions`
    ListSessions,
    /// `GET /ai-sessions/{id}`
    ReadSession,
    /// `GET /ai-sessions/{id}/events`
    SessionEvents,
    /// `DELETE /ai-sessions/{id}`
    StopSession,
    /// `GET /models`
    Models,
    /// `GET /health`
    Health,
    /// `GET /health/ready`
    Ready,
    /// `GET /openapi.json`
    Openapi,
    /// `GET /docs`
    Docs,
}

/// The match of a method and a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Match<'a> {
    /// A row, with the id of the path where it has one.
    Found {
        /// As in the table.
        pattern: &'static str,
        /// The row's.
        route: Route,
        /// Empty without one.
        id: &'a str,
    },
    /// The path has only these methods.
    OtherMethods(Vec<&'static str>),
    /// No such path.
    NotFound,
}

/// Finds the row of a method and a path.
#[must_use]
pub fn find<'a>(method: &str, path: &'a str) -> Match<'a> {
    let mut methods = Vec::new();
    for (known, pattern, route) in TABLE {
        let id = match split_once(pattern, "{id}") {
            None if *pattern == path => "",
            Some((before, after)) => {
                match path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)) {
                    Some(id) if !id.is_empty() && !id.contains('/') => id,
                    _ => continue,
                }
            }
            None => continue,
        };
        if *known == method {
            return Match::Found { pattern, route: *route, id };
        }
        methods.push(*known);
    }
    if methods.is_empty() { Match::NotFound } else { Match::OtherMethods(methods) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_its_route_or_other_methods() {
        let id = "5d3e2c1b-0000-4000-8000-00000000000a";
        for (method, path, route) in [
            ("POST", "/ai-sessions", Some(Route::CreateSession)),
            ("GET", &format!("/ai-sessions/{id}"), Some(Route::ReadSession)),
            ("GET", "/health", Some(Route::Health)),
            ("GET", "/models", Some(Route::Models)),
        ] {
            let Match::Found { route: found, .. } = find(method, path) else { panic!("{method} {path}") };
            assert_eq!(Some(found), route);
        }
        assert_eq!(find("DELETE", "/models"), Match::OtherMethods(vec!["GET"]));
        for path in [
            "/",
            "",
            "/ai-sessions/",
            "/ai-sessions//",
            "/ai-sessions/a/b",
            "/Health",
            "/health/",
            "//health",
        ] {
            assert_eq!(find("GET", path), Match::NotFound, "{path}");
        }
    }
}
