//! Every shape a profile can give is one that dcap-qvl takes for what it says.
#![allow(clippy::unwrap_used)]

use dcap_qvl::verify::QuoteVerifier;
use tdx_simulator::{
    Names, PckIssuer, Period, Profile, QuoteFormat, Signer, SimulatedPlatform, SimulatorError, SvnLevel,
    TD_DEBUG, TdIdentity, pem, x509,
};

const NOW_S: u64 = 1_800_000_000;
const DAY_S: u64 = 86_400;

fn platform(change: impl FnOnce(&mut Profile)) -> SimulatedPlatform {
    let mut profile = Profile::default();
    change(&mut profile);
    SimulatedPlatform::with_profile(&[5; 32], NOW_S, profile).unwrap()
}

fn quote(platform: &SimulatedPlatform) -> Vec<u8> {
    platform.quote(&[9; 64], &TdIdentity::of_image("worker"))
}

fn verdict(platform: &SimulatedPlatform) -> Result<String, String> {
    verdict_at(platform, &quote(platform), NOW_S)
}

fn verdict_at(platform: &SimulatedPlatform, quote: &[u8], now_s: u64) -> Result<String, String> {
    QuoteVerifier::new(platform.root_der().to_vec())
        .verify(quote, platform.collateral(), now_s)
        .map(|report| report.status)
        .map_err(|error| format!("{error:#}"))
}

fn refusal(platform: &SimulatedPlatform) -> String {
    verdict(platform).unwrap_err()
}

#[test]
fn every_shape_of_a_sound_platform_is_accepted() {
    let formats = [QuoteFormat::V4, QuoteFormat::V5Td10, QuoteFormat::V5Td15, QuoteFormat::V5Td15Ex];
    for format in formats {
        for issuer in [PckIssuer::Platform, PckIssuer::Processor] {
            let platform = platform(|profile| (profile.format, profile.issuer) = (format, issuer));
            assert_eq!(verdict(&platform), Ok("UpToDate".to_owned()), "{format:?} {issuer:?}");
        }
    }
    for change in [
        (|profile| profile.component_svns = [200; 16]) as fn(&mut Profile),
        |profile| profile.component_svns[15] = 255,
        |profile| profile.pce_svn = 300,
        |profile| (profile.tee_tcb_svn[0], profile.tee_tcb_svn[1]) = (5, 3),
        |profile| (profile.tee_tcb_svn[0], profile.tee_tcb_svn[1]) = (5, 0),
        |profile| profile.revocations.more_by_issuer = (0..60).map(|byte| [byte; 20]).collect(),
        |profile| profile.fmspc = [1, 2, 3, 4, 5, 6],
        |profile| profile.tcb_info.evaluation_number = 1_000,
    ] {
        assert_eq!(verdict(&platform(change)), Ok("UpToDate".to_owned()));
    }
}

#[test]
fn every_level_has_its_status() {
    let status = |svn: u8| verdict(&platform(|profile| profile.tee_tcb_svn[2] = svn)).unwrap();
    assert_eq!([7, 6, 2, 0].map(status), ["UpToDate", "SWHardeningNeeded", "OutOfDate", "OutOfDate"]);
    let status = |svn: u8| verdict(&platform(|profile| profile.tee_tcb_svn[0] = svn)).unwrap();
    assert_eq!([6, 4, 2].map(status), ["UpToDate", "OutOfDate", "OutOfDate"]);
    assert_eq!(verdict(&platform(|profile| profile.qe_svn = 2)), Ok("OutOfDate".to_owned()));
}

#[test]
fn what_is_wrong_is_refused_for_that() {
    for (change, word) in [
        ((|profile| profile.td_attributes |= TD_DEBUG) as fn(&mut Profile), "Debug"),
        (|profile| profile.td_attributes = 0, "SEPT_VE_DISABLE"),
        (|profile| profile.tee_tcb_svn[1] = 2, "TDX_02"),
        (|profile| profile.tee_tcb_svn[0] = 1, "ISVSVN"),
        (|profile| profile.qe_svn = 0, "QE"),
        (|profile| profile.revocations.pck = true, "CertRevoked"),
        (|profile| profile.revocations.issuer = true, "CertRevoked"),
        (|profile| profile.revocations.tcb_signer = true, "CertRevoked"),
        (|profile| profile.revocations.root = true, "CertRevoked"),
        (|profile| profile.tcb_info.levels[0].status = "Revoked", "Revoked"),
        (
            |profile| {
                profile.qe_identity.levels =
                    vec![SvnLevel { isv_svn: 1, status: "Revoked", advisories: Vec::new() }]
            },
            "Revoked",
        ),
        (|profile| profile.periods.pck = Period { from_s: None, until_s: Some(NOW_S - 1) }, "CertExpired"),
        (|profile| profile.periods.issuer = Period { from_s: None, until_s: Some(NOW_S - 1) }, "CertExpired"),
        (
            |profile| profile.periods.tcb_signer = Period { from_s: Some(NOW_S + 1), until_s: None },
            "CertNotValidYet",
        ),
        (
            |profile| profile.periods.root_crl = Period { from_s: None, until_s: Some(NOW_S - 1) },
            "CrlExpired",
        ),
        (|profile| profile.periods.pck_crl = Period { from_s: None, until_s: Some(NOW_S - 1) }, "CrlExpired"),
        (
            |profile| profile.periods.tcb_info = Period { from_s: None, until_s: Some(NOW_S - 1) },
            "TCBInfo expired",
        ),
        (
            |profile| profile.periods.qe_identity = Period { from_s: None, until_s: Some(NOW_S - 1) },
            "expired",
        ),
    ] {
        let refusal = refusal(&platform(change));
        assert!(refusal.contains(word), "{word}: {refusal}");
    }
}

#[test]
fn machines_and_issuer_keys_share_a_root() {
    let (one, two) = (platform(|_| ()), platform(|profile| profile.machine = 2));
    let rekeyed = platform(|profile| profile.issuer_key = 1);
    assert_eq!(one.root_der(), two.root_der());
    assert_eq!(one.certificates().pck_issuer, two.certificates().pck_issuer);
    assert_ne!(one.public_key(Signer::Pck), two.public_key(Signer::Pck));
    assert_ne!(one.public_key(Signer::AttestationKey), two.public_key(Signer::AttestationKey));
    assert_eq!(verdict_at(&one, &quote(&two), NOW_S), Ok("UpToDate".to_owned()));
    assert_eq!(one.root_der(), rekeyed.root_der());
    assert_ne!(one.public_key(Signer::PckIssuer), rekeyed.public_key(Signer::PckIssuer));
    // Its lists are another key's.
    assert!(verdict_at(&one, &quote(&rekeyed), NOW_S).is_err());
    let updated = platform(|profile| profile.pce_svn += 1);
    assert_ne!(one.serial(Signer::Pck), updated.serial(Signer::Pck));
}

#[test]
fn anything_can_be_signed_with_its_keys() {
    let platform = platform(|_| ());
    let mut parts = platform.quote_parts(&[9; 64], &TdIdentity::of_image("worker"));
    parts.signed[48 + 520] ^= 1;
    assert!(verdict_at(&platform, &parts.encode(), NOW_S).is_err());
    parts.signature = platform.sign_as(Signer::AttestationKey, &parts.signed);
    assert_eq!(verdict_at(&platform, &parts.encode(), NOW_S), Ok("UpToDate".to_owned()));

    // The signed part is all but the outer header, the algorithm and the signature.
    let issuer = &platform.certificates().pck_issuer;
    let length = 4 + usize::from(u16::from_be_bytes([issuer[6], issuer[7]]));
    let signed = &issuer[4..4 + length];
    let again = x509(signed, &platform.sign_as(Signer::Root, signed)).unwrap();
    assert_eq!(again, *issuer);
    assert!(pem(&again).lines().all(|line| line.len() <= 64));
    assert_eq!(x509(signed, &[0; 64]), Err(SimulatorError::Signature));
}

#[test]
fn names_fit_the_contract_and_say_what_they_are() {
    let Names { root, platform_ca, processor_ca, tcb_signer, pck } = Names::simulated();
    for name in [root, platform_ca, processor_ca, tcb_signer, pck] {
        assert!(name.len() <= 127, "{}", name.len());
        assert!(name.windows(19).any(|window| window == b"SIMULATED NOT INTEL"));
    }
}

#[test]
fn times_are_those_a_certificate_can_carry() {
    let with = |from_s, until_s| {
        let mut profile = Profile::default();
        profile.periods.pck = Period { from_s: Some(from_s), until_s: Some(until_s) };
        SimulatedPlatform::with_profile(&[5; 32], NOW_S, profile).map(|_| ())
    };
    assert_eq!(with(946_684_800, 2_524_607_999), Ok(()));
    assert_eq!(with(946_684_799, 2_524_607_999), Err(SimulatorError::Time(946_684_799)));
    assert_eq!(with(NOW_S, 2_524_608_000), Err(SimulatorError::Time(2_524_608_000)));
    assert!(SimulatedPlatform::new(&[5; 32], 2_524_607_999 - 31 * DAY_S).is_ok());
    let mut profile = Profile::default();
    profile.revocations.number = 128;
    let refused = SimulatedPlatform::with_profile(&[5; 32], NOW_S, profile).map(|_| ());
    assert_eq!(refused, Err(SimulatorError::CrlNumber(128)));
}
