//! Changes to signed texts: blind ones, and ones that know DER or JSON.

use rand::RngExt;
use rand::rngs::StdRng;

/// Changes the bytes somehow; says how.
pub(crate) fn blind(rng: &mut StdRng, bytes: &mut Vec<u8>) -> &'static str {
    let at = rng.random_range(0..bytes.len());
    match rng.random_range(0..8) {
        0..3 => {
            bytes[at] ^= 1 << rng.random_range(0..7);
            "bit"
        }
        3 => {
            bytes[at] = rng.random_range(0..128);
            "byte"
        }
        4 => {
            let end = (at + rng.random_range(1..20)).min(bytes.len());
            bytes.drain(at..end);
            if bytes.is_empty() {
                bytes.push(0);
            }
            "deleted"
        }
        5 => {
            let more: Vec<u8> = (0..rng.random_range(1..20)).map(|_| rng.random_range(0..128)).collect();
            bytes.splice(at..at, more);
            "inserted"
        }
        6 => {
            bytes.truncate(at.max(1));
            "truncated"
        }
        _ => {
            let from = rng.random_range(0..bytes.len());
            let slice = bytes[from..(from + rng.random_range(1..40)).min(bytes.len())].to_vec();
            let end = (at + slice.len()).min(bytes.len());
            bytes.splice(at..end, slice);
            "copied over"
        }
    }
}

/// A DER element. Primitive octets that are an element themselves are read as one: extensions hide there.
#[derive(Debug, Clone)]
struct Element {
    tag: u8,
    content: Content,
    /// The bytes of the length, where they are not the shortest.
    length: Option<LengthForm>,
}

#[derive(Debug, Clone)]
enum Content {
    Bytes(Vec<u8>),
    Elements(Vec<Element>),
}

#[derive(Debug, Clone, Copy)]
enum LengthForm {
    /// So many bytes of length more than needed.
    Padded(u8),
    Indefinite,
    /// More or less than there is.
    Off(i8),
}

/// Changes one element of a DER text and writes the lengths around it anew, so that all else stays sound.
pub(crate) fn der(rng: &mut StdRng, bytes: &mut Vec<u8>) -> &'static str {
    let Some((mut root, [])) =
        read(bytes).map(|(element, rest)| (element, <[u8; 0]>::try_from(rest).unwrap_or([])))
    else {
        return blind(rng, bytes);
    };
    let count = count(&root);
    let mut pick = rng.random_range(0..count);
    let what = pick_element(&mut root, &mut pick, &mut |element| change(rng, element)).unwrap_or("unchanged");
    *bytes = write(&root);
    what
}

fn change(rng: &mut StdRng, element: &mut Element) -> &'static str {
    match rng.random_range(0..12) {
        0 => {
            element.length = Some(LengthForm::Padded(rng.random_range(1..4)));
            "length padded"
        }
        1 => {
            element.length = Some(LengthForm::Indefinite);
            "length indefinite"
        }
        2 => {
            element.length = Some(LengthForm::Off(if rng.random() { 1 } else { -1 }));
            "length off"
        }
        3 => {
            element.tag ^= 1 << rng.random_range(0..8);
            "tag"
        }
        4 => match &mut element.content {
            Content::Bytes(bytes) => {
                bytes.insert(0, if rng.random() { 0 } else { 0xff });
                "content led"
            }
            Content::Elements(elements) => {
                elements.insert(0, null());
                "element put first"
            }
        },
        5 | 6 => match &mut element.content {
            Content::Bytes(bytes) => {
                bytes.push(rng.random_range(0..128));
                "content trailed"
            }
            Content::Elements(elements) => {
                elements.push(null());
                "element put last"
            }
        },
        7 => match &mut element.content {
            Content::Bytes(bytes) => {
                bytes.pop();
                "content shortened"
            }
            Content::Elements(elements) => {
                let at = rng.random_range(0..elements.len().max(1));
                if at < elements.len() {
                    elements.remove(at);
                }
                "element removed"
            }
        },
        8 | 9 => match &mut element.content {
            Content::Bytes(bytes) if !bytes.is_empty() => {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
                "content bit"
            }
            Content::Bytes(bytes) => {
                bytes.push(0);
                "content trailed"
            }
            Content::Elements(elements) => {
                let at = rng.random_range(0..elements.len().max(1));
                if let Some(element) = elements.get(at).cloned() {
                    elements.insert(at, element);
                }
                "element twice"
            }
        },
        10 => match &mut element.content {
            Content::Bytes(bytes) => {
                bytes.clear();
                "content emptied"
            }
            Content::Elements(elements) => {
                let length = elements.len().max(1);
                let (a, b) = (rng.random_range(0..length), rng.random_range(0..length));
                if a < elements.len() && b < elements.len() {
                    elements.swap(a, b);
                }
                "elements swapped"
            }
        },
        _ => match &mut element.content {
            Content::Bytes(bytes) => {
                for byte in bytes.iter_mut() {
                    *byte = rng.random();
                }
                "content random"
            }
            Content::Elements(elements) => {
                elements.clear();
                "elements emptied"
            }
        },
    }
}

fn null() -> Element {
    Element { tag: 5, content: Content::Bytes(Vec::new()), length: None }
}

fn count(element: &Element) -> usize {
    match &element.content {
        Content::Bytes(_) => 1,
        Content::Elements(elements) => 1 + elements.iter().map(count).sum::<usize>(),
    }
}

fn pick_element(
    element: &mut Element,
    pick: &mut usize,
    change: &mut impl FnMut(&mut Element) -> &'static str,
) -> Option<&'static str> {
    if *pick == 0 {
        return Some(change(element));
    }
    *pick -= 1;
    let Content::Elements(elements) = &mut element.content else { return None };
    elements.iter_mut().find_map(|element| pick_element(element, pick, change))
}

fn read(bytes: &[u8]) -> Option<(Element, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), &rest[2..]),
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    let content = match tag {
        _ if tag & 0x20 != 0 => Content::Elements(read_all(content)?),
        4 if content.first() == Some(&0x30) => match read_all(content) {
            Some(elements) => Content::Elements(elements),
            None => Content::Bytes(content.to_vec()),
        },
        _ => Content::Bytes(content.to_vec()),
    };
    Some((Element { tag, content, length: None }, rest))
}

fn read_all(mut bytes: &[u8]) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    while !bytes.is_empty() {
        let (element, rest) = read(bytes)?;
        elements.push(element);
        bytes = rest;
    }
    Some(elements)
}

fn write(element: &Element) -> Vec<u8> {
    let content = match &element.content {
        Content::Bytes(bytes) => bytes.clone(),
        Content::Elements(elements) => elements.iter().flat_map(write).collect(),
    };
    let mut out = vec![element.tag];
    let length = content.len();
    let shortest = match length {
        0..=127 => 0,
        128..=255 => 1,
        _ => 2,
    };
    let long = |bytes: usize, length: usize| {
        let all = (length as u64).to_be_bytes();
        [&[0x80 | bytes as u8], &all[8 - bytes..]].concat()
    };
    match element.length {
        None if shortest == 0 => out.push(length as u8),
        None => out.extend(long(shortest, length)),
        Some(LengthForm::Padded(more)) => out.extend(long(shortest + usize::from(more), length)),
        Some(LengthForm::Indefinite) => {
            out.push(0x80);
            out.extend(content);
            out.extend([0, 0]);
            return out;
        }
        Some(LengthForm::Off(by)) => {
            let length = length.saturating_add_signed(isize::from(by));
            if shortest == 0 { out.push(length as u8 & 127) } else { out.extend(long(shortest, length)) }
        }
    }
    out.extend(content);
    out
}

/// Changes a JSON text where a reader might stumble.
pub(crate) fn json(rng: &mut StdRng, bytes: &mut Vec<u8>) -> &'static str {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let marks = |mark: char| text.match_indices(mark).map(|(at, _)| at).collect::<Vec<_>>();
    let some = |rng: &mut StdRng, of: &[usize]| of[rng.random_range(0..of.len())];
    let (changed, what) = match rng.random_range(0..12) {
        0 => {
            let at = some(rng, &[marks(','), marks(':'), marks('{')].concat());
            let space = [" ", "\n", "\t", "\r\n"][rng.random_range(0..4)];
            (format!("{}{space}{}", &text[..=at], &text[at + 1..]), "space")
        }
        1 => {
            // A key once more, with another's value.
            let keys: Vec<(usize, usize)> = members(&text);
            let (from, until) = keys[rng.random_range(0..keys.len())];
            let member = &text[from..until];
            let (key, _) = member.split_once(':').unwrap_or((member, ""));
            let (a, b) = keys[rng.random_range(0..keys.len())];
            let value = text[a..b].split_once(':').map_or("0", |(_, value)| value);
            match rng.random_range(0..3) {
                0 => (format!("{}{key}:{value},{}", &text[..from], &text[from..]), "key twice, other first"),
                1 => (format!("{},{key}:{value}{}", &text[..until], &text[until..]), "key twice, other last"),
                _ => (format!("{},{member}{}", &text[..until], &text[until..]), "key twice, same"),
            }
        }
        2 => {
            let keys = members(&text);
            let (from, until) = keys[rng.random_range(0..keys.len())];
            (
                format!("{}\"extra\":1,{}", &text[..from], &text[from..]),
                if until > 0 { "unknown key" } else { "" },
            )
        }
        3 => {
            let keys = members(&text);
            let at = rng.random_range(0..keys.len() - 1);
            let ((a, b), (c, d)) = (keys[at], keys[at + 1]);
            if b + 1 == c {
                let text = format!("{}{},{}{}", &text[..a], &text[c..d], &text[a..b], &text[d..]);
                (text, "keys swapped")
            } else {
                (text[..a].to_owned() + &text[d..], "keys removed")
            }
        }
        4 => {
            let digits: Vec<usize> =
                text.char_indices().filter(|(_, c)| c.is_ascii_digit()).map(|(at, _)| at).collect();
            let at = some(rng, &digits);
            let form =
                ["1.0", "01", "1e0", "-0", "99999999999", "7", "0", "255", "256"][rng.random_range(0..9)];
            (format!("{}{form}{}", &text[..at], &text[at + 1..]), "number")
        }
        5 => {
            let letters: Vec<usize> =
                text.char_indices().filter(|(_, c)| c.is_ascii_alphanumeric()).map(|(at, _)| at).collect();
            let at = some(rng, &letters);
            let escaped = format!("\\u{:04x}", u32::from(text.as_bytes()[at]));
            (format!("{}{escaped}{}", &text[..at], &text[at + 1..]), "escape")
        }
        6 => {
            let letters: Vec<usize> =
                text.char_indices().filter(|(_, c)| c.is_ascii_alphabetic()).map(|(at, _)| at).collect();
            let at = some(rng, &letters);
            let other = char::from(text.as_bytes()[at] ^ 0x20);
            (format!("{}{other}{}", &text[..at], &text[at + 1..]), "case")
        }
        7 => {
            let levels: Vec<usize> = text.match_indices("{\"tcb\":").map(|(at, _)| at).collect();
            let at = some(rng, &levels);
            let end = text[at..].find("\"tcbStatus\"").map_or(text.len(), |end| at + end);
            let end = text[end..].find('}').map_or(text.len(), |more| end + more + 1);
            let level = text[at..end].to_owned();
            match rng.random_range(0..3) {
                0 => (format!("{}{level},{}", &text[..at], &text[at..]), "level twice"),
                1 => {
                    let to = some(rng, &levels);
                    (format!("{}{level},{}", &text[..to], &text[to..]), "level moved")
                }
                _ => {
                    let rest = text[end..].strip_prefix(',').unwrap_or(&text[end..]);
                    (format!("{}{rest}", &text[..at]), "level removed")
                }
            }
        }
        8 => {
            let statuses = [
                "UpToDate",
                "OutOfDate",
                "Revoked",
                "SWHardeningNeeded",
                "ConfigurationNeeded",
                "ConfigurationAndSWHardeningNeeded",
                "OutOfDateConfigurationNeeded",
                "TDRelaunchAdvised",
                "",
            ];
            let starts: Vec<usize> = text.match_indices("\"tcbStatus\":\"").map(|(at, _)| at + 13).collect();
            let at = some(rng, &starts);
            let end = text[at..].find('"').map_or(text.len(), |end| at + end);
            let status = statuses[rng.random_range(0..statuses.len())];
            (format!("{}{status}{}", &text[..at], &text[end..]), "status")
        }
        9 => {
            let ends = ["]", "}", ",", "\"", ",]", "{}"];
            let end = ends[rng.random_range(0..ends.len())];
            let at = some(rng, &[marks('}'), marks(']'), marks('"')].concat());
            (format!("{}{end}{}", &text[..at], &text[at..]), "punctuation")
        }
        10 => {
            let hex: Vec<usize> = text
                .char_indices()
                .filter(|(_, c)| matches!(c, 'A'..='F' | '0'..='9'))
                .map(|(at, _)| at)
                .collect();
            let at = some(rng, &hex);
            let digit = char::from(b"0123456789ABCDEF"[rng.random_range(0..16)]);
            (format!("{}{digit}{}", &text[..at], &text[at + 1..]), "digit")
        }
        _ => {
            let times: Vec<usize> = text.match_indices("20").map(|(at, _)| at).collect();
            let at = some(rng, &times);
            let year = ["19", "21", "2x", "  "][rng.random_range(0..4)];
            (format!("{}{year}{}", &text[..at], &text[at + 2..]), "century")
        }
    };
    *bytes = changed.into_bytes();
    what
}

/// Where members `"key":value` are, of values without members.
fn members(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (colon, _) in text.match_indices("\":") {
        let Some(from) = text[..colon].rfind('"') else { continue };
        let rest = &text[colon + 2..];
        let length = match rest.strip_prefix('"') {
            Some(string) => string.find('"').map(|end| end + 2),
            None => rest.find([',', '}', ']', '{', '[']),
        };
        if let Some(length @ 1..) = length {
            found.push((from, colon + 2 + length));
        }
    }
    found
}
