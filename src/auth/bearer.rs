//! The `Authorization` header (RFC 6750, section 2.1; the scheme's case does not matter: RFC 9110, section 11.1).

use super::Refused;

/// The longest token; longer ones are rejected unread. A Supabase access token has some 700 to 1500 bytes; custom claims make
/// it longer, and common servers allow 8 KiB for a whole header line.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// A token as it was sent, checked for its length and characters alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BearerToken<'a>(&'a str);

impl<'a> BearerToken<'a> {
    /// Reads the token from the header. Several headers are joined by commas, which no token contains.
    ///
    /// # Errors
    /// [`Refused::Missing`] without a header of this scheme, [`Refused::Invalid`] if the value cannot be a token.
    pub fn read(header: Option<&'a str>) -> Result<Self, Refused> {
        let header = header.ok_or(Refused::Missing)?.trim_matches([' ', '\t']);
        let (scheme, token) = header.split_once(' ').unwrap_or((header, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refused::Missing);
        }
        let token = token.trim_start_matches(' ');
        if token.is_empty() {
            return Err(Refused::Missing);
        }
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if token.len() > TOKEN_BYTES_MAX || !token.bytes().all(is_token) {
            return Err(Refused::Invalid);
        }
        Ok(Self(token))
    }

    /// Returns the token, for the requests to the database on behalf of the user.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_bearer_token_is_accepted() {
        let longest = "a".repeat(TOKEN_BYTES_MAX);
        let with_longest = format!("Bearer {longest}");
        let too_long = format!("Bearer {longest}a");
        for (header, expected) in [
            (None, Err(Refused::Missing)),
            (Some(""), Err(Refused::Missing)),
            (Some("Basic YTpi"), Err(Refused::Missing)),
            (Some("Bearer"), Err(Refused::Missing)),
            (Some("Bearer "), Err(Refused::Missing)),
            (Some("a.b.c"), Err(Refused::Missing)),
            (Some("Bearera.b.c"), Err(Refused::Missing)),
            (Some("Bearer a.b.c"), Ok("a.b.c")),
            (Some("bearer a.b.c"), Ok("a.b.c")),
            (Some("BEARER  a.b.c"), Ok("a.b.c")),
            (Some("Bearer a.b.c, Bearer a.b.c"), Err(Refused::Invalid)),
            (Some("Bearer a.b.c,"), Err(Refused::Invalid)),
            (Some("Bearer a b"), Err(Refused::Invalid)),
            (Some("Bearer a.b.c="), Err(Refused::Invalid)),
            (Some("Bearer a+/b"), Err(Refused::Invalid)),
            (Some("Bearer ä.b.c"), Err(Refused::Invalid)),
            (Some(&with_longest), Ok(longest.as_str())),
            (Some(&too_long), Err(Refused::Invalid)),
        ] {
            assert_eq!(BearerToken::read(header).map(BearerToken::as_str), expected);
        }
    }
}
