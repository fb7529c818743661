//! What is kept, and for how long it is used.

use std::path::Path;

use collateral::{CollateralError, Pccs, Settings};
use tdx_simulator::{Period, Periods, Profile, Revocations, TcbInfoProfile};

use crate::server::{Act, Server, status};
use crate::{DAY_S, NOW_S, platform_of, simulated};

const FRESH_S: u64 = 3_600;

fn kept_in(server: &Server, folder: &Path, root_der: &[u8]) -> Pccs {
    let cache = Some(folder.to_owned());
    Pccs::new(Settings { cache, fresh_s: FRESH_S, ..server.settings() }, root_der).unwrap()
}

#[tokio::test]
async fn what_is_kept_spares_the_server_and_stands_in_for_it_until_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("deep/collateral");
    let machine = simulated(Profile::default());
    let platform = platform_of(&machine);
    let server = Server::start(None).await;
    server.serves(machine.collateral());
    let pccs = kept_in(&server, &cache, machine.root_der());
    let got = pccs.collateral(&platform, NOW_S).await.unwrap();
    assert_eq!((got, server.asked().len()), (machine.collateral().clone(), 4));

    // Another process finds it, and asks for nothing while it is fresh.
    let another = kept_in(&server, &cache, machine.root_der());
    for later_s in [0, FRESH_S - 1] {
        let got = another.collateral(&platform, NOW_S + later_s).await.unwrap();
        assert_eq!((got, server.asked().len()), (machine.collateral().clone(), 0));
    }
    another.collateral(&platform, NOW_S + FRESH_S).await.unwrap();
    assert_eq!(server.asked().len(), 4);
    // A clock that went back makes nothing fresh.
    another.collateral(&platform, NOW_S - 10).await.unwrap();
    assert_eq!(server.asked().len(), 4);

    // A server that fails: stale, but in force.
    server.does(|_| vec![Act::Say(status(500))]);
    let got = another.collateral(&platform, NOW_S + 29 * DAY_S).await.unwrap();
    assert_eq!((got, server.asked().len()), (machine.collateral().clone(), 4));
    // Over: the server's error is told.
    let error = another.collateral(&platform, NOW_S + 30 * DAY_S).await.unwrap_err();
    assert!(matches!(error, CollateralError::Http { .. }), "{error}");

    let mut files: Vec<_> = std::fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(
        files,
        ["pck-crl-platform.json", "qe-identity.json", "root-crl.json", "tcb-info-53494D544458.json"]
    );
}

#[tokio::test]
async fn each_document_ends_by_its_own_date() {
    let folder = tempfile::tempdir().unwrap();
    let soon = Period { from_s: None, until_s: Some(NOW_S + DAY_S) };
    let periods = Periods { pck_crl: soon, ..Periods::default() };
    let machine = simulated(Profile { periods, ..Profile::default() });
    let platform = platform_of(&machine);
    let server = Server::start(None).await;
    server.serves(machine.collateral());
    let pccs = kept_in(&server, folder.path(), machine.root_der());
    pccs.collateral(&platform, NOW_S).await.unwrap();
    server.does(|_| vec![Act::Say(status(500))]);
    pccs.collateral(&platform, NOW_S + DAY_S - 1).await.unwrap();
    let error = pccs.collateral(&platform, NOW_S + DAY_S).await.unwrap_err();
    assert!(error.to_string().contains("gave no PCK CRL"), "{error}");
    // The rest is still there when the server has a new list.
    let renewed = simulated(Profile::default());
    server.serves(renewed.collateral());
    let got = pccs.collateral(&platform, NOW_S + DAY_S).await.unwrap();
    assert_eq!(got.pck_crl, renewed.collateral().pck_crl);
}

#[tokio::test]
async fn what_is_kept_counts_by_what_is_in_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let machine = simulated(Profile::default());
    let platform = platform_of(&machine);
    let server = Server::start(None).await;
    server.serves(machine.collateral());
    let pccs = kept_in(&server, folder.path(), machine.root_der());
    pccs.collateral(&platform, NOW_S).await.unwrap();
    let file = folder.path().join("tcb-info-53494D544458.json");
    let sound = std::fs::read(&file).unwrap();
    let mut flipped = sound.clone();
    let middle = flipped.len() / 2;
    flipped[middle] = if flipped[middle] == b'0' { b'1' } else { b'0' };
    let elsewhere = std::fs::read(folder.path().join("qe-identity.json")).unwrap();
    for bad in [&b""[..], b"{", &sound[..sound.len() / 2], &flipped, &elsewhere] {
        std::fs::write(&file, bad).unwrap();
        server.asked();
        let got = pccs.collateral(&platform, NOW_S + 1).await.unwrap();
        assert_eq!(got, *machine.collateral());
        assert_eq!(server.asked(), ["/tdx/certification/v4/tcb?fmspc=53494D544458"]);
    }
    // A folder that cannot be written costs requests, not the collateral.
    let blocked = folder.path().join("root-crl.json/below");
    let pccs = kept_in(&server, &blocked, machine.root_der());
    assert_eq!(pccs.collateral(&platform, NOW_S).await.unwrap(), *machine.collateral());
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn a_server_that_goes_back_in_time_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let newer = || {
        let revocations = Revocations { number: 9, ..Revocations::default() };
        let tcb_info = TcbInfoProfile { evaluation_number: 90, ..Profile::default().tcb_info };
        Profile { revocations, tcb_info, ..Profile::default() }
    };
    let (new, old) = (simulated(newer()), simulated(Profile::default()));
    assert!(old.profile().tcb_info.evaluation_number < 90 && old.profile().revocations.number < 9);
    let platform = platform_of(&new);
    let server = Server::start(None).await;
    let pccs = kept_in(&server, folder.path(), new.root_der());
    server.serves(new.collateral());
    pccs.collateral(&platform, NOW_S).await.unwrap();
    server.serves(old.collateral());
    let got = pccs.collateral(&platform, NOW_S + DAY_S).await.unwrap();
    assert_eq!(got, *new.collateral());
    // Without a memory there is nothing to hold it to.
    assert_eq!(server.pccs(new.root_der()).collateral(&platform, NOW_S).await.unwrap(), *old.collateral());
}
