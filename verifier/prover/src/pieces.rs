//! Cutting a signed text into the cells that `contracts/pieces.tolk` reads.
//!
//! The contract reads a text in bites and hashes it in pieces. A bite must lie in one piece, and a new piece begins
//! only between bites. Where the contract asks for no certain cut, bites are packed into as few pieces as there can be.

use contracts::attestor::{MAX_PIECE_BYTES, Pieces, PiecesError};

/// How the contract takes the next bytes of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bite {
    /// So many bytes at once: in one piece.
    Whole(usize),
    /// So many bytes that go on to the end of their piece: the next bite begins another.
    ToTheEnd(usize),
}

/// The fewest pieces of `text` in which no bite is cut. Bytes past the last bite are cut anywhere.
///
/// # Errors
/// [`PiecesError::Length`] for a bite over [`MAX_PIECE_BYTES`] or past the end of the text, [`PiecesError::Count`] for
/// a text too long for one message.
pub fn pack(text: &[u8], bites: &[Bite]) -> Result<Pieces, PiecesError> {
    let mut pieces = Vec::new();
    let mut piece = Vec::with_capacity(MAX_PIECE_BYTES);
    let mut rest = text;
    for bite in bites {
        match *bite {
            Bite::Whole(length) => take_whole(&mut pieces, &mut piece, &mut rest, length)?,
            Bite::ToTheEnd(length) => {
                take_whole(&mut pieces, &mut piece, &mut rest, length)?;
                close(&mut pieces, &mut piece);
            }
        }
    }
    fill(&mut pieces, &mut piece, rest);
    close(&mut pieces, &mut piece);
    Pieces::new(pieces)
}

fn take_whole(
    pieces: &mut Vec<Vec<u8>>,
    piece: &mut Vec<u8>,
    rest: &mut &[u8],
    length: usize,
) -> Result<(), PiecesError> {
    if length > MAX_PIECE_BYTES {
        return Err(PiecesError::Length { bytes: length });
    }
    let (bite, after) = split(rest, length)?;
    if piece.len() + length > MAX_PIECE_BYTES {
        close(pieces, piece);
    }
    piece.extend_from_slice(bite);
    *rest = after;
    Ok(())
}

fn fill(pieces: &mut Vec<Vec<u8>>, piece: &mut Vec<u8>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        if piece.len() == MAX_PIECE_BYTES {
            close(pieces, piece);
        }
        let (now, later) = bytes.split_at(bytes.len().min(MAX_PIECE_BYTES - piece.len()));
        piece.extend_from_slice(now);
        bytes = later;
    }
}

fn close(pieces: &mut Vec<Vec<u8>>, piece: &mut Vec<u8>) {
    if !piece.is_empty() {
        pieces.push(std::mem::replace(piece, Vec::with_capacity(MAX_PIECE_BYTES)));
    }
}

fn split(bytes: &[u8], length: usize) -> Result<(&[u8], &[u8]), PiecesError> {
    bytes.split_at_checked(length).ok_or(PiecesError::Length { bytes: length })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn lengths(text: &[u8], bites: &[Bite]) -> Vec<usize> {
        let pieces = pack(text, bites).unwrap();
        assert_eq!(pieces.concat(), text);
        pieces.as_slice().iter().map(Vec::len).collect()
    }

    #[test]
    fn a_bite_is_never_cut_and_what_follows_fills() {
        let text: Vec<u8> = (0..=255).collect();
        assert_eq!(lengths(&text, &[Bite::Whole(100), Bite::Whole(28), Bite::Whole(108)]), [100, 28, 127, 1]);
        assert_eq!(lengths(&text, &[Bite::Whole(100)]), [127, 127, 2]);
    }

    #[test]
    fn what_runs_to_the_end_of_its_piece_ends_it() {
        assert_eq!(lengths(&[7; 30], &[Bite::Whole(10), Bite::ToTheEnd(5), Bite::Whole(15)]), [15, 15]);
    }

    #[test]
    fn refuses_what_no_message_can_carry() {
        assert_eq!(pack(&[], &[]), Err(PiecesError::Count { count: 0 }));
        assert_eq!(pack(&[0; 128], &[Bite::Whole(128)]), Err(PiecesError::Length { bytes: 128 }));
        assert_eq!(pack(&[0; 3], &[Bite::Whole(4)]), Err(PiecesError::Length { bytes: 4 }));
        assert_eq!(pack(&vec![0; 251 * 127], &[]), Err(PiecesError::Count { count: 251 }));
    }

    proptest! {
        #[test]
        fn pieces_are_the_text(text in proptest::collection::vec(any::<u8>(), 1..2_000), cuts in proptest::collection::vec(0usize..200, 0..40)) {
            let bites: Vec<Bite> = cuts
                .iter()
                .map(|&length| if length % 2 == 0 { Bite::Whole(length) } else { Bite::ToTheEnd(length) })
                .collect();
            if let Ok(pieces) = pack(&text, &bites) {
                prop_assert_eq!(pieces.concat(), text);
            }
        }
    }
}
