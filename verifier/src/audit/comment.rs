//! Text comments, which a Job takes for the messages they name.

use contracts::job::{CancelJob, CloseSession, ExpireJob, SweepJob};
use contracts::{Cell, Message};

/// The message that a body of 32 zero bits and a word stands for; nothing for another body. As the contract reads it:
/// the bits of the first cell alone, 64 at most, as one number behind spaces, whose letters' case does not count.
pub(super) fn message_of(body: &Cell) -> Option<Cell> {
    let mut text = body.as_slice().ok()?;
    if text.load_u32().ok()? != 0 {
        return None;
    }
    let bits = text.size_bits();
    if bits > 64 {
        return None;
    }
    let number = if bits == 0 { 0 } else { text.load_uint(bits).ok()? };
    let word = (number | SPACES).to_be_bytes();
    let query_id = 0;
    let message = match &word {
        b"  cancel" => CancelJob { query_id }.to_cell(),
        b"   close" => CloseSession { query_id }.to_cell(),
        b"  expire" => ExpireJob { query_id }.to_cell(),
        b"   sweep" => SweepJob { query_id }.to_cell(),
        _ => return None,
    };
    message.ok()
}

/// In a letter, the bit of the lower case; alone, a space.
const SPACES: u64 = 0x2020_2020_2020_2020;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tycho_types::cell::CellBuilder;

    use super::*;

    fn said(bytes: &[u8]) -> Option<Cell> {
        let mut body = CellBuilder::new();
        body.store_u32(0).unwrap();
        body.store_raw(bytes, (bytes.len() * 8) as u16).unwrap();
        message_of(&body.build().unwrap())
    }

    #[test]
    fn a_word_stands_for_its_message_whatever_its_case_and_what_is_before_it() {
        let cancel = CancelJob { query_id: 0 }.to_cell().unwrap();
        for text in ["cancel", "Cancel", "CANCEL", "  cancel", "\0 cAncel"] {
            assert_eq!(said(text.as_bytes()).as_ref(), Some(&cancel), "{text:?}");
        }
        assert_eq!(said(b"close"), Some(CloseSession { query_id: 0 }.to_cell().unwrap()));
        assert_eq!(said(b"Expire"), Some(ExpireJob { query_id: 0 }.to_cell().unwrap()));
        assert_eq!(said(b"sweep"), Some(SweepJob { query_id: 0 }.to_cell().unwrap()));
    }

    #[test]
    fn anything_else_stands_for_nothing() {
        for text in ["", "cancel ", "cancels", "stake", "   cancel", "cance1"] {
            assert_eq!(said(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(message_of(&Cell::default()), None);
        assert_eq!(message_of(&CancelJob { query_id: 0 }.to_cell().unwrap()), None);
    }
}
