//! A PCCS in this process: an honest one with genuine and simulated documents, and every other kind.
#![allow(clippy::unwrap_used)]

mod cache;
mod hostile;
mod server;
mod tls;

use collateral::{Ca, CollateralError, Kind, Platform};
use dcap_qvl::QuoteCollateralV3;
use tdx_simulator::{Faults, PckIssuer, Profile, SimulatedPlatform, TdIdentity};

use crate::server::Server;

pub(crate) const INTEL_ROOT: &[u8] = include_bytes!("../../../../verifier/fixtures/intel_root.der");
pub(crate) const NOW_S: u64 = 1_800_000_000;
pub(crate) const DAY_S: u64 = 86_400;

pub(crate) fn simulated(profile: Profile) -> SimulatedPlatform {
    SimulatedPlatform::with_profile(&[9; 32], NOW_S, profile).unwrap()
}

pub(crate) fn platform_of(machine: &SimulatedPlatform) -> Platform {
    Platform::of_quote(&machine.quote(&[0; 64], &TdIdentity::of_image("any"))).unwrap()
}

/// Name, quote, collateral, and a moment at which all of it was in force.
fn genuine() -> [(&'static str, &'static [u8], QuoteCollateralV3, u64); 2] {
    let read = |text: &str| -> QuoteCollateralV3 {
        let collateral = serde_json::from_str(text).unwrap();
        QuoteCollateralV3 { pck_certificate_chain: None, ..collateral }
    };
    [
        (
            "v4",
            include_bytes!("../../../../verifier/fixtures/tdx_quote"),
            read(include_str!("../../../../verifier/fixtures/tdx_quote_collateral.json")),
            1_750_415_547,
        ),
        (
            "v5 1.5ex",
            include_bytes!("../../../../verifier/fixtures/tdx_quote_td15ex"),
            read(include_str!("../../../../verifier/fixtures/tdx_quote_td15ex_collateral.json")),
            1_791_504_586,
        ),
    ]
}

#[tokio::test]
async fn genuine_documents_come_through_to_the_byte_while_they_are_in_force() {
    for (name, quote, expected, now_s) in genuine() {
        let server = Server::start(None).await;
        server.serves(&expected);
        let platform = Platform::of_quote(quote).unwrap();
        let pccs = server.pccs(INTEL_ROOT);
        let collateral = pccs.collateral(&platform, now_s).await.unwrap();
        assert_eq!(collateral, expected, "{name}");
        let fmspc = hex::encode_upper(platform.fmspc.0);
        assert_eq!(
            server.asked(),
            [
                format!("/sgx/certification/v4/pckcrl?ca={}&encoding=der", platform.ca),
                format!("/tdx/certification/v4/tcb?fmspc={fmspc}"),
                "/tdx/certification/v4/qe/identity".to_owned(),
                "/sgx/certification/v4/rootcacrl".to_owned(),
            ]
        );
        let late = pccs.collateral(&platform, now_s + 90 * DAY_S).await.unwrap_err();
        assert!(late.to_string().contains("ended at"), "{late}");
    }
}

#[tokio::test]
async fn simulated_documents_of_both_authorities_count_under_the_simulators_root_alone() {
    for (issuer, ca) in [(PckIssuer::Platform, Ca::Platform), (PckIssuer::Processor, Ca::Processor)] {
        let machine = simulated(Profile { issuer, ..Profile::default() });
        let platform = platform_of(&machine);
        assert_eq!(platform, Platform { fmspc: contracts::attestor::Bytes(tdx_simulator::FMSPC), ca });
        let server = Server::start(None).await;
        server.serves(machine.collateral());
        let collateral = server.pccs(machine.root_der()).collateral(&platform, NOW_S).await.unwrap();
        assert_eq!(collateral, *machine.collateral());
        let refused = server.pccs(INTEL_ROOT).collateral(&platform, NOW_S).await.unwrap_err();
        assert!(matches!(refused, CollateralError::Document { kind: Kind::PckCrl, .. }), "{refused}");
    }
    let (_, quote, collateral, now_s) = &genuine()[0];
    let server = Server::start(None).await;
    server.serves(collateral);
    let platform = Platform::of_quote(quote).unwrap();
    let simulators = server.pccs(simulated(Profile::default()).root_der());
    assert!(simulators.collateral(&platform, *now_s).await.is_err());
}

/// Whether a platform is revoked is for the Attestor to say; its list has to come through.
#[tokio::test]
async fn lists_of_revoked_platforms_come_through() {
    let machine = simulated(Faults { revoked_pck: true, ..Faults::default() }.into());
    let server = Server::start(None).await;
    server.serves(machine.collateral());
    let collateral = server.pccs(machine.root_der()).collateral(&platform_of(&machine), NOW_S).await;
    assert_eq!(collateral.unwrap(), *machine.collateral());
}

#[test]
fn a_quote_that_says_nothing_of_its_platform_is_refused() {
    let (_, quote, ..) = genuine()[0];
    assert!(Platform::of_quote(&quote[..2_000]).is_err());
    assert!(Platform::of_quote(&[]).is_err());
    assert!(Platform::of_chain("").is_err());
    let machine = simulated(Profile::default());
    // A chain of authorities alone.
    assert!(Platform::of_chain(&machine.collateral().tcb_info_issuer_chain).is_err());
}
