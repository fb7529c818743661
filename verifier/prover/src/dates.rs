//! Times as certificates (UTCTime) and Intel's documents (RFC 3339) write them, as Unix seconds.

const DAY_S: u32 = 86_400;

/// `YYMMDDhhmmssZ`: 2000 to 2049 (RFC 5280, 4.1.2.5.1).
pub(crate) fn utc_time(text: &[u8; 13]) -> Option<u32> {
    let [pairs @ .., b'Z'] = text else {
        return None;
    };
    let year = two_digits(pairs, 0)?;
    if year >= 50 {
        return None;
    }
    unix_time(2000 + year, [2, 4, 6, 8, 10].map(|at| two_digits(pairs, at)))
}

/// `YYYY-MM-DDThh:mm:ssZ`: 2000 to 2099.
pub(crate) fn rfc3339_time(text: &[u8; 20]) -> Option<u32> {
    let [b'2', b'0', _, _, b'-', _, _, b'-', _, _, b'T', _, _, b':', _, _, b':', _, _, b'Z'] = text else {
        return None;
    };
    unix_time(2000 + two_digits(text, 2)?, [5, 8, 11, 14, 17].map(|at| two_digits(text, at)))
}

fn two_digits(text: &[u8], at: usize) -> Option<u32> {
    match text.get(at..at + 2)? {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            Some(u32::from(tens - b'0') * 10 + u32::from(ones - b'0'))
        }
        _ => None,
    }
}

/// `rest` is month, day, hour, minute, second.
fn unix_time(year: u32, rest: [Option<u32>; 5]) -> Option<u32> {
    let [Some(month), Some(day), Some(hour), Some(minute), Some(second)] = rest else {
        return None;
    };
    if !(1..=12).contains(&month) || !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let whole_years = (2000..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum::<u32>();
    let whole_months = (1..month).map(|month| days_in_month(year, month)).sum::<u32>();
    // 2000-01-01 is day 10 957.
    let days = 10_957 + whole_years + whole_months + day - 1;
    Some(days * DAY_S + hour * 3_600 + minute * 60 + second)
}

fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Within 2000 to 2099.
fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_calendar() {
        assert_eq!(utc_time(b"000101000000Z"), Some(946_684_800));
        assert_eq!(utc_time(b"180521105010Z"), Some(1_526_899_810));
        assert_eq!(utc_time(b"240229235959Z"), Some(1_709_251_199));
        assert_eq!(utc_time(b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(rfc3339_time(b"2025-06-19T10:16:03Z"), Some(1_750_328_163));
        assert_eq!(rfc3339_time(b"2099-12-31T23:59:59Z"), Some(4_102_444_799));
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in [
            b"500101000000Z",
            b"230229000000Z",
            b"230001000000Z",
            b"231301000000Z",
            b"230100000000Z",
            b"230132000000Z",
            b"230101240000Z",
            b"230101006000Z",
            b"230101000060Z",
            b"2301010000 0Z",
            b"2301010000000",
            b"230431000000Z",
        ] {
            assert_eq!(utc_time(text), None, "{text:?}");
        }
        for text in [
            b"1999-12-31T23:59:59Z",
            b"2025-06-19 10:16:03Z",
            b"2025-06-19T10:16:03+",
            b"2025-02-30T10:16:03Z",
        ] {
            assert_eq!(rfc3339_time(text), None, "{text:?}");
        }
    }
}
