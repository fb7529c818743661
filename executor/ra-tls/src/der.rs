//! The little of DER (ITU-T X.690, 10.1) that a certificate of one form needs: definite, minimal lengths up to 65 535.

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const OID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const VERSION: u8 = 0xa0;
pub(crate) const EXTENSIONS: u8 = 0xa3;

/// One element: all of its bytes, and those behind tag and length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) whole: &'a [u8],
    pub(crate) contents: &'a [u8],
}

/// Reads elements one behind the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next element, which has to have this tag.
    pub(crate) fn element(&mut self, tag: u8) -> Option<Element<'a>> {
        let bytes = self.0;
        let (&found, rest) = bytes.split_first()?;
        if found != tag {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 => {
                let (&length, rest) = rest.split_first()?;
                (usize::from(length), (length >= 0x80).then_some(rest)?)
            }
            0x82 => {
                let (length, rest) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*length)), (length[0] != 0).then_some(rest)?)
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Element { whole: bytes.get(..bytes.len() - rest.len())?, contents })
    }

    /// The same, where it is there.
    pub(crate) fn optional(&mut self, tag: u8) -> Option<Option<Element<'a>>> {
        if self.0.first() == Some(&tag) { self.element(tag).map(Some) } else { Some(None) }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Option<()> {
        self.is_empty().then_some(())
    }
}

/// An element of these parts. The parts together are at most 65 535 bytes long; every caller's are below 1 000.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = u16::try_from(contents.len()).unwrap_or(u16::MAX);
    let [high, low] = length.to_be_bytes();
    let mut out = Vec::with_capacity(contents.len() + 4);
    out.push(tag);
    match length {
        0..=0x7f => out.push(low),
        0x80..=0xff => out.extend([0x81, low]),
        _ => out.extend([0x82, high, low]),
    }
    out.extend(contents);
    out
}

/// A time as RFC 5280, 4.1.2.5 wants it: UTCTime through 2049, GeneralizedTime from then on. `None` from the year 10 000.
pub(crate) fn time(unix_s: u64) -> Option<Vec<u8>> {
    let (year, month, day) = civil(unix_s / 86_400)?;
    let (hour, minute, second) = (unix_s / 3_600 % 24, unix_s / 60 % 60, unix_s % 60);
    let rest = format!("{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
    Some(if year < 2050 {
        element(UTC_TIME, &[format!("{:02}{rest}", year % 100).as_bytes()])
    } else {
        element(GENERALIZED_TIME, &[format!("{year:04}{rest}").as_bytes()])
    })
}

/// Year, month and day of a day since 1970-01-01; the calendar repeats every 146 097 days, counted here from 0000-03-01.
fn civil(day: u64) -> Option<(u64, u64, u64)> {
    if day > LAST_DAY {
        return None;
    }
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    Some((era * 400 + year_of_era + u64::from(month <= 2), month, of_month))
}

/// 9999-12-31.
const LAST_DAY: u64 = 2_932_896;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (unix_s, text) in [
            (0, "700101000000Z"),
            (951_782_400, "000229000000Z"),
            (1_709_251_199, "240229235959Z"),
            (2_524_607_999, "491231235959Z"),
            (2_524_608_000, "20500101000000Z"),
            (4_107_542_400, "21000301000000Z"),
            (253_402_300_799, "99991231235959Z"),
        ] {
            assert_eq!(&time(unix_s).unwrap()[2..], text.as_bytes());
        }
        assert_eq!(time(253_402_300_800), None);
        assert_eq!(time(u64::MAX), None);
    }

    #[test]
    fn lengths_are_minimal_and_inside() {
        for length in [0, 1, 127, 128, 255, 256, 900] {
            let bytes = element(SEQUENCE, &[&vec![7; length]]);
            let mut reader = Reader(&bytes);
            assert_eq!(reader.element(SEQUENCE).unwrap().contents.len(), length);
            assert!(reader.is_empty());
            assert!(Reader(&bytes[..bytes.len() - 1]).element(SEQUENCE).is_none());
        }
        for bytes in [&[SEQUENCE, 0x81, 1, 0][..], &[SEQUENCE, 0x82, 0, 1, 0], &[SEQUENCE, 0x80, 0, 0]] {
            assert!(Reader(bytes).element(SEQUENCE).is_none());
        }
    }
}
