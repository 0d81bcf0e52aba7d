//! Amounts of US dollars as integers, so that no sum of them is rounded: nanodollars for costs and limits, picodollars for the
//! price of a token.

/// The decimals of a nanodollar: 1 dollar is 10^9 of them.
pub const NANODOLLAR: u32 = 9;
/// The decimals of a picodollar a token as dollars per million tokens.
pub const PRICE: u32 = 6;

/// Reads a decimal number such as `0.50`, in units of its last allowed decimal; `None` for any other text and for a number
/// that does not fit.
#[must_use]
pub fn read(text: &str, decimals: u32) -> Option<u64> {
    let (whole, rest) = text.split_once('.').map_or((text, "0"), |(whole, rest)| (whole, rest));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(rest) {
        return None;
    }
    let rest = rest.trim_end_matches('0');
    let missing = decimals.checked_sub(u32::try_from(rest.len()).ok()?)?;
    let rest = if rest.is_empty() { 0 } else { rest.parse::<u64>().ok()? };
    let rest = rest.checked_mul(10_u64.checked_pow(missing)?)?;
    whole.parse::<u64>().ok()?.checked_mul(10_u64.checked_pow(decimals)?)?.checked_add(rest)
}

/// Writes an amount as a decimal number without zeros at its end.
#[must_use]
pub fn write(amount: u64, decimals: u32) -> String {
    let unit = 10_u64.saturating_pow(decimals).max(1);
    let (whole, rest) = (amount / unit, amount % unit);
    let mut text = whole.to_string();
    if rest > 0 {
        let digits = rest.to_string();
        let zeros = usize::try_from(decimals).unwrap_or(0).saturating_sub(digits.len());
        text.push('.');
        text.push_str(&"0".repeat(zeros));
        text.push_str(digits.trim_end_matches('0'));
    }
    text
}

/// Converts a cost that an upstream reports in dollars, rounded up; what is not a number is 0.
#[must_use]
pub fn nanodollars(dollars: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::as_conversions,
        reason = "from a real number there is no other way, and this one saturates"
    )]
    let nanodollars = (dollars * 1e9).ceil() as u64;
    nanodollars
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_decimal_number_is_read_to_its_last_unit() {
        for (text, decimals, amount) in [
            ("0.50", NANODOLLAR, Some(500_000_000)),
            ("1", NANODOLLAR, Some(1_000_000_000)),
            ("007.000000001", NANODOLLAR, Some(7_000_000_001)),
            ("0.1000000000", NANODOLLAR, Some(100_000_000)),
            ("0.0000000001", NANODOLLAR, None),
            ("18446744073.709551615", NANODOLLAR, Some(u64::MAX)),
            ("18446744073.709551616", NANODOLLAR, None),
            ("0.075", PRICE, Some(75_000)),
            ("", PRICE, None),
            (".", PRICE, None),
            (".5", PRICE, None),
            ("5.", PRICE, None),
            ("-1", PRICE, None),
            ("+1", PRICE, None),
            ("1e3", PRICE, None),
            ("1,5", PRICE, None),
            ("1.2.3", PRICE, None),
            ("99999999999999999999", 0, None),
        ] {
            assert_eq!(read(text, decimals), amount, "{text}");
        }
    }

    #[test]
    fn a_reported_cost_is_rounded_up() {
        for (dollars, expected) in [
            (0.0, 0),
            (0.5, 500_000_000),
            (0.000_000_000_1, 1),
            (0.001_234_567_891, 1_234_568),
            (1_000_000.0, 1_000_000_000_000_000),
            (f64::NAN, 0),
            (-1.0, 0),
            (f64::INFINITY, u64::MAX),
        ] {
            assert_eq!(nanodollars(dollars), expected, "{dollars}");
        }
    }

    proptest! {
        #[test]
        fn an_amount_is_read_as_it_was_written(amount in any::<u64>(), decimals in 0..=9_u32) {
            let text = write(amount, decimals);
            prop_assert_eq!(read(&text, decimals), Some(amount), "{}", text);
            prop_assert!(!text.contains('.') || !text.ends_with('0'), "{}", text);
        }

        #[test]
        fn a_cost_is_never_less_than_it_was_reported(nanodollars_reported in 0..1_000_000_000_000_u64) {
            let text = write(nanodollars_reported, NANODOLLAR);
            let dollars: f64 = text.parse().expect("a number");
            let read = nanodollars(dollars);
            prop_assert!((nanodollars_reported..=nanodollars_reported + 1).contains(&read), "{}", text);
        }
    }
}
