//! Times as RFC 3339 writes them: `2026-11-27T10:00:00.123Z`. Its years are 0 to 9999, and its calendar is the Gregorian one, also
//! before it was introduced.
//!
//! Own code, because the whole of `chrono`'s formats would make the module 3 KB larger; the tests compare it with `chrono`.

const US_PER_S: i64 = 1_000_000;
const S_PER_DAY: i64 = 86_400;
/// Days of 400 years, after which the calendar repeats itself.
const DAYS_PER_ERA: i64 = 146_097;
/// Days from 1 March of the year 0 to 1 January 1970.
const DAYS_TO_EPOCH: i64 = 719_468;

/// The first and the last microsecond of these years.
const FIRST_US: i64 = -62_167_219_200_000_000;
const LAST_US: i64 = 253_402_300_799_999_999;

/// Writes a time with so many digits of its second, 3 or 6, in UTC; one outside of the years as the nearest one.
#[must_use]
pub fn write(us: i64, digits: usize) -> String {
    let us = us.clamp(FIRST_US, LAST_US);
    let (day, in_day) = (us.div_euclid(US_PER_S * S_PER_DAY), us.rem_euclid(US_PER_S * S_PER_DAY));
    let (year, month, day) = date_of(day);
    let (second, fraction) = (in_day / US_PER_S, in_day % US_PER_S);
    let mut text = String::new();
    for (number, width, end) in [
        (year, 4, "-"),
        (month, 2, "-"),
        (day, 2, "T"),
        (second / 3600, 2, ":"),
        (second / 60 % 60, 2, ":"),
        (second % 60, 2, "."),
    ] {
        push_padded(&mut text, number, width);
        text.push_str(end);
    }
    let fraction = if digits == 3 { fraction / 1000 } else { fraction };
    push_padded(&mut text, fraction, digits);
    text.push('Z');
    text
}

fn push_padded(text: &mut String, number: i64, width: usize) {
    let number = number.to_string();
    text.extend(std::iter::repeat_n('0', width.saturating_sub(number.len())));
    text.push_str(&number);
}

/// Reads a time with an offset; microseconds since the Unix epoch, without further digits. `None` for other texts, among them a
/// leap second, which neither Postgres nor this service writes.
#[must_use]
pub fn read(text: &str) -> Option<i64> {
    let (date, rest) = text.as_bytes().split_at_checked("2026-11-27".len())?;
    let (time, rest) = rest.split_at_checked("T10:00:00".len())?;
    let ([year @ .., b'-', m1, m2, b'-', d1, d2], [b'T', h1, h2, b':', n1, n2, b':', s1, s2]) = (date, time)
    else {
        return None;
    };
    let (year, month, day) = (number(year)?, number(&[*m1, *m2])?, number(&[*d1, *d2])?);
    let (hour, minute, second) = (number(&[*h1, *h2])?, number(&[*n1, *n2])?, number(&[*s1, *s2])?);
    let (fraction, offset) = match rest {
        [b'.', rest @ ..] => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (fraction, offset) = rest.split_at_checked(digits).filter(|_| digits > 0)?;
            let padded: Vec<u8> = fraction.iter().copied().chain(*b"000000").take(6).collect();
            (number(&padded)?, offset)
        }
        offset => (0, offset),
    };
    let offset_minutes = match offset {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', n1, n2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*n1, *n2])?);
            let offset = (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)?;
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    let days = days_of(year, month, day);
    // A day that the month does not have is another day.
    let is_time = date_of(days) == (year, month, day) && hour < 24 && minute < 60 && second < 60;
    let seconds = days * S_PER_DAY + (hour * 60 + minute - offset_minutes) * 60 + second;
    is_time.then_some(seconds * US_PER_S + fraction)
}

fn number(digits: &[u8]) -> Option<i64> {
    let is_number = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

/// Returns year, month and day of a number of days since the Unix epoch. The year of the calculation begins with March, so that
/// the leap day is its last: "chrono-Compatible Low-Level Date Algorithms", Howard Hinnant.
const fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_EPOCH;
    let (era, in_era) = (days.div_euclid(DAYS_PER_ERA), days.rem_euclid(DAYS_PER_ERA));
    let year = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let is_next_year = month <= 2;
    (if is_next_year { year + era * 400 + 1 } else { year + era * 400 }, month, day)
}

/// The reverse of [`date_of`].
const fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let in_year = (153 * month + 2) / 5 + day - 1;
    era * DAYS_PER_ERA + year * 365 + year / 4 - year / 100 + in_year - DAYS_TO_EPOCH
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, SecondsFormat, Utc};
    use proptest::prelude::*;

    use super::*;

    fn by_chrono(us: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(us).expect("in the calendar")
    }

    #[test]
    fn times_at_the_ends_of_the_years_are_written() {
        for us in [FIRST_US, FIRST_US - 1, i64::MIN] {
            assert_eq!(write(us, 3), "0000-01-01T00:00:00.000Z");
        }
        for us in [LAST_US, LAST_US + 1, i64::MAX] {
            assert_eq!(write(us, 6), "9999-12-31T23:59:59.999999Z");
        }
    }

    #[test]
    fn a_text_that_is_no_time_is_not_read() {
        for text in [
            "",
            "infinity",
            "2026-11-27",
            "2026-11-27T10:00:00",
            "2026-11-27 10:00",
            "2026-11-27T10:00:00.Z",
            "2026-02-29T10:00:00Z",
            "1900-02-29T10:00:00Z",
            "2026-00-27T10:00:00Z",
            "2026-13-27T10:00:00Z",
            "2026-11-00T10:00:00Z",
            "2026-11-31T10:00:00Z",
            "2026-11-27T24:00:00Z",
            "2026-11-27T10:60:00Z",
            "2026-11-27T10:00:60Z",
            "2026-11-27T10:00:00+24:00",
            "2026-11-27T10:00:00+02:60",
            "2026-11-27T10:00:00+0200",
            "2026-11-27T10:00:00Zx",
            "+026-11-27T10:00:00Z",
            "2026-11-27T1\u{e9}:00:00Z",
            "0044-03-15T00:00:00+00:00 BC",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read("2000-02-29T23:59:59.9999999+23:59"), Some(951_782_459_999_999));
    }

    proptest! {
        #[test]
        fn a_time_is_written_as_chrono_writes_it(us in FIRST_US..=LAST_US) {
            let time = by_chrono(us);
            prop_assert_eq!(write(us, 3), time.to_rfc3339_opts(SecondsFormat::Millis, true));
            prop_assert_eq!(write(us, 6), time.to_rfc3339_opts(SecondsFormat::Micros, true));
            prop_assert_eq!(read(&time.to_rfc3339_opts(SecondsFormat::Nanos, true)), Some(us));
        }

        #[test]
        fn a_time_is_read_as_chrono_reads_it(
            text in "[0-9]{4}-(0[0-9]|1[0-3])-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-][0-2][0-9]:[0-6][0-9])",
        ) {
            prop_assert_eq!(read(&text), DateTime::parse_from_rfc3339(&text).ok().map(|time| time.timestamp_micros()), "{}", text);
        }

        #[test]
        fn any_text_is_read_without_panic(text in "[0-9TZ:.+é -]{0,40}") {
            let _ = read(&text);
        }
    }
}
