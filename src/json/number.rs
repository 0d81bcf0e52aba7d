//! Numbers of JSON as `f64`: bit for bit those that `serde_json` reads, without its 2.4 KB of powers of ten.

/// `significand * 10^exponent`, and a sign.
#[derive(Debug)]
pub(super) struct Decimal {
    is_negative: bool,
    significand: u64,
    exponent: i32,
}

/// The largest power of ten that `f64` has.
const EXPONENT_MAX: u32 = 308;

impl Decimal {
    /// Reads a number of the grammar. Digits for which `u64` has no place count as zeros.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let unsigned = text.strip_prefix(b"-");
        let (whole, mut rest) = split_digits(unsigned.unwrap_or(text));
        if whole.is_empty() || (whole.len() > 1 && whole.starts_with(b"0")) {
            return None;
        }
        let mut number = Self { is_negative: unsigned.is_some(), significand: 0, exponent: 0 };
        let added = number.add(whole);
        number.exponent = count(whole).saturating_sub(added);
        if let Some(after_point) = rest.strip_prefix(b".") {
            let (fraction, after) = split_digits(after_point);
            if fraction.is_empty() {
                return None;
            }
            let added = number.add(fraction);
            number.exponent = number.exponent.saturating_sub(added);
            rest = after;
        }
        if let [b'e' | b'E', power @ ..] = rest {
            let negative = power.strip_prefix(b"-");
            let unsigned = negative.or_else(|| power.strip_prefix(b"+")).unwrap_or(power);
            let (digits, after) = split_digits(unsigned);
            if digits.is_empty() {
                return None;
            }
            let power = digits
                .iter()
                .fold(0_i32, |power, digit| power.saturating_mul(10).saturating_add(i32::from(digit & 0xF)));
            let power = if negative.is_some() { power.saturating_neg() } else { power };
            number.exponent = number.exponent.saturating_add(power);
            rest = after;
        }
        rest.is_empty().then_some(number)
    }

    /// Adds digits as long as there is a place for the next; returns how many.
    fn add(&mut self, digits: &[u8]) -> i32 {
        let mut added = 0_i32;
        for digit in digits {
            let next =
                self.significand.checked_mul(10).and_then(|ten| ten.checked_add(u64::from(digit & 0xF)));
            let Some(next) = next else { break };
            self.significand = next;
            added = added.saturating_add(1);
        }
        added
    }

    /// The number, rounded as by `serde_json`; `None` when it is too large.
    pub(super) fn value(&self) -> Option<f64> {
        #[expect(
            clippy::as_conversions,
            reason = "to a real number there is no other way, and this one rounds"
        )]
        let mut value = self.significand as f64;
        let mut exponent = self.exponent.unsigned_abs();
        while exponent > EXPONENT_MAX && value != 0.0 {
            if self.exponent > 0 {
                return None;
            }
            value /= power_of_ten(EXPONENT_MAX);
            exponent = exponent.saturating_sub(EXPONENT_MAX);
        }
        if value != 0.0 {
            let power = power_of_ten(exponent);
            if self.exponent < 0 { value /= power } else { value *= power }
        }
        value.is_finite().then_some(if self.is_negative { -value } else { value })
    }
}

fn count(digits: &[u8]) -> i32 {
    i32::try_from(digits.len()).unwrap_or(i32::MAX)
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or_default()
}

/// A power of ten up to [`EXPONENT_MAX`], rounded once. `5^exponent` has 122 bits here: enough for each of them, as a test shows.
fn power_of_ten(exponent: u32) -> f64 {
    let (mut power_of_five, mut zeros) = (1_u128, exponent);
    for _ in 0..exponent {
        power_of_five = power_of_five.wrapping_add(power_of_five << 2);
        if power_of_five >> 125 != 0 {
            power_of_five >>= 3;
            zeros = zeros.saturating_add(3);
        }
    }
    #[expect(clippy::as_conversions, reason = "to a real number there is no other way, and this one rounds")]
    let rounded = power_of_five as f64;
    // A power of two has no digits but its exponent, which begins at the bit 52, with an offset of 1023.
    rounded * f64::from_bits(u64::from(zeros).saturating_add(1023) << 52)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Option<u64> {
        Some(Decimal::read(text)?.value()?.to_bits())
    }

    fn expected(text: &[u8]) -> Option<u64> {
        Some(serde_json::from_slice::<f64>(text).ok()?.to_bits())
    }

    #[test]
    fn each_power_of_ten_is_that_of_the_standard_library() {
        for exponent in 0..=EXPONENT_MAX {
            assert_eq!(Ok(power_of_ten(exponent)), format!("1e{exponent}").parse(), "{exponent}");
        }
    }

    #[test]
    fn numbers_at_the_limits_are_read_as_by_serde_json() {
        for text in [
            "0",
            "-0",
            "-0.0",
            "0e9",
            "0e-99999999999",
            "0e99999999999",
            "1e99999999999",
            "1e-99999999999",
            "1e308",
            "1e309",
            "-1e309",
            "1.7976931348623157e308",
            "1.7976931348623159e308",
            "5e-324",
            "2e-324",
            "123456789e-330",
            "1e-616",
            "1e-617",
            "1e-330",
            "18446744073709551615",
            "18446744073709551616",
            "18446744073709551619.1",
            "-9223372036854775808",
            "-9223372036854775809",
            "0.18446744073709551615",
            "0.18446744073709551616",
            "1.000000000000000000000000000001",
            "12345678901234567890123e-5",
            "1e2147483647",
            "1e-2147483648",
            "10e2147483647",
            "0.1e-2147483648",
            "",
            "-",
            "+1",
            "01",
            "00",
            "1.",
            ".5",
            "1e",
            "1e+",
            "1e5.",
            "1 ",
        ] {
            assert_eq!(
                read(text.as_bytes()),
                expected(text.trim_ascii().as_bytes()).filter(|_| text != "1 "),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_number_is_read_as_by_serde_json(number in any::<f64>(), whole in any::<u64>(), zeros in 0_usize..30, power in -340..320_i32) {
            let texts = [
                number.to_string(),
                format!("{number:e}"),
                format!("{whole}{}.{}{whole}E{power}", "0".repeat(zeros), "0".repeat(zeros)),
                format!("-0.{}{whole}", "0".repeat(zeros)),
                format!("{whole}{zeros}.{zeros}e+{zeros}"),
            ];
            for text in texts {
                prop_assert_eq!(read(text.as_bytes()), expected(text.as_bytes()), "{}", text);
            }
        }

        #[test]
        fn almost_a_number_is_read_as_by_serde_json(text in "-?[0-9]{0,22}[.eE]?[-+]?[0-9]{0,22}[.eE]?[-+]?[0-9]{0,4}") {
            prop_assert_eq!(read(text.as_bytes()), expected(text.as_bytes()));
        }
    }
}
