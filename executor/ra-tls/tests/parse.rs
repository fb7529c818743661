//! The certificate's parser against another library, and against altered bytes.
#![allow(clippy::unwrap_used)]

mod world;

use proptest::prelude::*;
use ra_tls::certificate::{Certificate, CertificateError, MAX_CERTIFICATE_BYTES, Validity};
use ra_tls::evidence::{self, EvidenceError, MAX_VALIDITY_S};
use ra_tls::{Identity, IdentityError};
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use world::{NOW_S, World};

#[test]
fn another_library_reads_the_same() {
    let world = World::new(1);
    let identity = world.identity();
    let (rest, read) = x509_parser::parse_x509_certificate(identity.certificate()).unwrap();
    assert!(rest.is_empty());
    assert_eq!(read.version(), x509_parser::x509::X509Version::V3);
    assert_eq!(read.validity().not_before.timestamp(), world.binding.validity.not_before_s as i64);
    assert_eq!(read.validity().not_after.timestamp(), world.binding.validity.not_after_s as i64);
    assert_eq!(read.public_key().subject_public_key.data.as_ref(), identity.public_key());
    let [extension] = read.extensions() else { panic!("{:?}", read.extensions()) };
    assert_eq!(extension.oid.to_id_string(), "2.23.133.5.4.9");
    assert!(!extension.critical);
    let ours = Certificate::parse(identity.certificate()).unwrap();
    assert_eq!(ours.evidence.as_deref(), Some(extension.value));
    ParsedCertificate::try_from(&CertificateDer::from(identity.certificate())).unwrap();

    let session = Identity::session(world::key(9)).unwrap();
    let (_, read) = x509_parser::parse_x509_certificate(session.certificate()).unwrap();
    assert_eq!(read.validity().not_after.timestamp(), 253_402_300_799);
    assert_eq!(evidence::session_key(session.certificate()), Ok(session.public_key()));
}

#[test]
fn every_bit_and_every_length_counts() {
    let world = World::new(2);
    let honest = world.identity().certificate().to_vec();
    evidence::verify(&honest, &world.expected, NOW_S).unwrap();
    for bit in 0..honest.len() * 8 {
        let mut changed = honest.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(evidence::verify(&changed, &world.expected, NOW_S).is_err(), "bit {bit}");
    }
    for length in 0..honest.len() {
        assert!(Certificate::parse(&honest[..length]).is_err());
    }
    let long = [&honest[..], &[0]].concat();
    assert_eq!(Certificate::parse(&long), Err(CertificateError::Malformed { part: "end" }));
    let huge = vec![0x30; MAX_CERTIFICATE_BYTES + 1];
    assert_eq!(Certificate::parse(&huge), Err(CertificateError::TooLarge { bytes: huge.len() }));
}

#[test]
fn time_is_held_to_on_both_ends() {
    let world = World::new(3);
    let certificate = world.identity().certificate().to_vec();
    let at = |now_s| evidence::verify(&certificate, &world.expected, now_s);
    let Validity { not_before_s, not_after_s } = world.binding.validity;
    at(not_before_s).unwrap();
    at(not_after_s).unwrap();
    for now_s in [not_before_s - 1, not_after_s + 1] {
        let refused =
            EvidenceError::Certificate(CertificateError::NotInForce { not_before_s, not_after_s, now_s });
        assert_eq!(at(now_s), Err(refused));
    }
    let mut over = world.expected.clone();
    over.attested_until_s = NOW_S;
    let refused = EvidenceError::AttestationExpired { expired_at_s: NOW_S, now_s: NOW_S };
    assert_eq!(evidence::verify(&certificate, &over, NOW_S), Err(refused));

    let mut long = world.binding.clone();
    long.validity.not_after_s = long.validity.not_before_s + MAX_VALIDITY_S + 1;
    assert_eq!(
        Identity::worker(&long, &world.receipt, &mut rand::rng()).err(),
        Some(IdentityError::Validity)
    );
    let made = world.certificate(&world::key(7), &long, long.validity);
    assert_eq!(evidence::verify(&made, &world.expected, NOW_S), Err(EvidenceError::ValidTooLong));
    // An envelope that lives longer than its evidence.
    let made = world.certificate(&world::key(7), &world.binding, long.validity);
    let refused = EvidenceError::Certificate(CertificateError::ValidityMismatch);
    assert_eq!(evidence::verify(&made, &world.expected, NOW_S), Err(refused));
}

#[test]
fn a_clients_certificate_is_no_workers_and_the_reverse() {
    let world = World::new(4);
    let session = Identity::session(world::key(9)).unwrap();
    let refused = evidence::verify(session.certificate(), &world.expected, NOW_S);
    assert_eq!(refused, Err(EvidenceError::Missing));
    let refused = evidence::session_key(world.identity().certificate());
    assert_eq!(refused, Err(CertificateError::UnexpectedEvidence));
}

#[test]
fn a_weak_key_is_no_key() {
    let world = World::new(5);
    let mut expected = world.expected.clone();
    // The neutral element, under which anything verifies loosely.
    expected.receipt_key = contracts::HashBytes::ZERO;
    expected.receipt_key.0[0] = 1;
    let refused = evidence::verify(world.identity().certificate(), &expected, NOW_S);
    assert_eq!(refused, Err(EvidenceError::BadReceiptKey));
}

proptest! {
    /// Pieces of a certificate cut, repeated, moved and overwritten: never a panic, never accepted.
    #[test]
    fn altered_bytes_are_refused(
        edits in prop::collection::vec((0_u8..4, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let world = World::new(6);
        let honest = world.identity().certificate().to_vec();
        let mut bytes = honest.clone();
        for (kind, first, second, value) in edits {
            if bytes.is_empty() {
                break;
            }
            let (first, second) = (first.index(bytes.len()), second.index(bytes.len()));
            let (from, to) = (first.min(second), first.max(second));
            match kind {
                0 => bytes[first] = value,
                1 => drop(bytes.drain(from..to)),
                2 => { let piece = bytes[from..to].to_vec(); bytes.splice(from..from, piece); }
                _ => bytes[from..to].rotate_left(usize::from(value) % (to - from).max(1)),
            }
        }
        prop_assume!(bytes != honest);
        prop_assert!(evidence::verify(&bytes, &world.expected, NOW_S).is_err());
        prop_assert!(evidence::session_key(&bytes).is_err());
    }

    /// Any bytes, with and without the beginning of a sequence.
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(Certificate::parse(&bytes).is_err());
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        let framed = [&[0x30, 0x82, length[0], length[1]], &bytes[..]].concat();
        prop_assert!(Certificate::parse(&framed).is_err());
    }
}
