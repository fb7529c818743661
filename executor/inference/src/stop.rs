//! Stop strings in a text that comes in pieces.

use zeroize::Zeroize;

use crate::error::GenerateError;

const MAX_STRINGS: usize = 16;
const MAX_BYTES: usize = 256;

/// Lets text through up to the first stop string, and holds back what may be the beginning of one.
pub(crate) struct StopStrings {
    strings: Vec<String>,
    waiting: String,
    met: bool,
}

impl StopStrings {
    pub(crate) fn new(strings: &[String]) -> Result<Self, GenerateError> {
        let fits = strings.len() <= MAX_STRINGS
            && strings.iter().all(|string| (1..=MAX_BYTES).contains(&string.len()));
        if fits {
            Ok(Self { strings: strings.to_vec(), waiting: String::new(), met: false })
        } else {
            Err(GenerateError::Parameter("stop"))
        }
    }

    /// Whether one has come.
    pub(crate) fn is_met(&self) -> bool {
        self.met
    }

    /// The text that is certain once `piece` has come.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        if self.met {
            return String::new();
        }
        self.waiting.push_str(piece);
        let found = self.strings.iter().filter_map(|string| self.waiting.find(string.as_str())).min();
        if let Some(at) = found {
            self.met = true;
            let certain = self.waiting[..at].to_owned();
            self.waiting.zeroize();
            return certain;
        }
        let may_begin = |tail: &str| self.strings.iter().any(|string| string.starts_with(tail));
        let from = self.waiting.len().saturating_sub(MAX_BYTES);
        let hold = self
            .waiting
            .char_indices()
            .map(|(at, _)| at)
            .filter(|at| *at >= from)
            .find(|at| may_begin(&self.waiting[*at..]))
            .unwrap_or(self.waiting.len());
        let rest = self.waiting.split_off(hold);
        std::mem::replace(&mut self.waiting, rest)
    }

    /// What was held back when nothing more comes.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.waiting)
    }
}

impl Drop for StopStrings {
    fn drop(&mut self) {
        self.strings.zeroize();
        self.waiting.zeroize();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(strings: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let strings: Vec<String> = strings.iter().map(ToString::to_string).collect();
        let mut stop = StopStrings::new(&strings).unwrap();
        let mut shown: Vec<String> = pieces.iter().map(|piece| stop.push(piece)).collect();
        let met = stop.is_met();
        shown.push(stop.finish());
        (shown, met)
    }

    #[test]
    fn text_before_a_stop_string_passes_and_nothing_after() {
        assert_eq!(
            run(&["END"], &["a E", "N", "D b", "c"]),
            (["a ", "", "", "", ""].map(String::from).into(), true)
        );
        assert_eq!(
            run(&["END"], &["a E", "NO", "x"]),
            (["a ", "ENO", "x", ""].map(String::from).into(), false)
        );
        assert_eq!(run(&["é!", "\n\n"], &["xé", "\n"]), (["x", "é", "\n"].map(String::from).into(), false));
        assert_eq!(run(&["bc", "abcd"], &["ab", "c"]), (["", "a", ""].map(String::from).into(), true));
        assert_eq!(run(&[], &["all", " of it"]), (["all", " of it", ""].map(String::from).into(), false));
    }

    #[test]
    fn too_many_too_long_and_empty_ones_are_refused() {
        assert!(StopStrings::new(&vec!["x".to_owned(); 17]).is_err());
        assert!(StopStrings::new(&["x".repeat(257)]).is_err());
        assert!(StopStrings::new(&[String::new()]).is_err());
    }
}
