//! Servers that lie, stall, flood and point elsewhere. Each costs one error that names it.

use collateral::{CollateralError, DocumentError, HttpError, Kind, Pccs, Settings};
use contracts::attestor::Bytes;
use dcap_qvl::QuoteCollateralV3;
use tdx_simulator::{Period, Periods, Profile, Signer};

use crate::server::{Act, Server, encoded, found, honest, status, tcb_info};
use crate::{DAY_S, INTEL_ROOT, NOW_S, platform_of, simulated};

/// Long enough for what comes before the stall.
const STALL_MS: u64 = 2_000;

/// What asking for the TCB info meets where the server answers it like this, and everything else honestly.
async fn met(answer: impl Fn(&QuoteCollateralV3) -> Vec<Act> + Send + Sync + 'static) -> CollateralError {
    met_within(60_000, answer).await
}

async fn met_within(
    request_ms: u64,
    answer: impl Fn(&QuoteCollateralV3) -> Vec<Act> + Send + Sync + 'static,
) -> CollateralError {
    let machine = simulated(Profile::default());
    let server = Server::start(None).await;
    let collateral = machine.collateral().clone();
    server.does(move |path| match path.contains("/tcb?") {
        true => answer(&collateral),
        false => vec![Act::Say(honest(&collateral, path))],
    });
    let settings = server.settings();
    let settings = Settings { limits: collateral::Limits { request_ms, ..settings.limits }, ..settings };
    let pccs = Pccs::new(settings, machine.root_der()).unwrap();
    let error = pccs.document(Kind::TcbInfo, &platform_of(&machine), NOW_S).await.unwrap_err();
    let words = error.to_string();
    assert!(words.contains(&server.address.to_string()) && words.contains("TCB info"), "{words}");
    error
}

fn http(error: CollateralError) -> HttpError {
    match error {
        CollateralError::Http { kind: Kind::TcbInfo, cause, .. } => cause,
        other => panic!("{other}"),
    }
}

fn document(error: CollateralError) -> DocumentError {
    match error {
        CollateralError::Document { kind: Kind::TcbInfo, cause, .. } => cause,
        other => panic!("{other}"),
    }
}

fn say(bytes: impl Into<Vec<u8>>) -> Vec<Act> {
    vec![Act::Say(bytes.into())]
}

#[tokio::test]
async fn a_body_without_end_is_left() {
    let lines = || Act::Repeat(vec![b'x'; 4_096]);
    for head in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n",
    ] {
        let error = http(met(move |_| vec![Act::Say(head.into()), lines()]).await);
        assert!(
            matches!(error, HttpError::TooLong { limit: 65_536 } | HttpError::Broken { .. }),
            "{head}: {error}"
        );
    }
    let chunks = || Act::Repeat(b"4\r\nabcd\r\n".to_vec());
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let error = http(met(move |_| vec![Act::Say(head.into()), chunks()]).await);
    assert!(matches!(error, HttpError::TooLong { .. }), "{error}");
}

#[tokio::test]
async fn headers_without_end_are_left() {
    for line in ["x: y\r\n".to_owned(), format!("x: {}\r\n", "y".repeat(500)), "y".repeat(1_000)] {
        let error = http(
            met(move |_| vec![Act::Say("HTTP/1.1 200 OK\r\n".into()), Act::Repeat(line.clone().into())])
                .await,
        );
        assert!(matches!(error, HttpError::Broken { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_stalls_is_left() {
    for said in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"] {
        let error = met_within(STALL_MS, move |_| vec![Act::Say(said.into()), Act::Hang]).await;
        assert!(error.to_string().contains("did not answer within 2000 ms"), "{said:?}: {error}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_only_ok_counts() {
    for code in [301, 302, 303, 307, 308] {
        let error = http(met(move |_| say(status(code))).await);
        assert!(matches!(error, HttpError::Redirect { status } if status == code), "{error}");
    }
    for code in [201, 204, 400, 404, 429, 500, 503] {
        let error = http(met(move |_| say(status(code))).await);
        assert!(matches!(error, HttpError::Status { status } if status == code), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_http_or_ends_early_is_refused() {
    for said in [
        "",
        "\0\0\0\0",
        "SSH-2.0-server\r\n\r\n",
        "HTTP/1.1 999999 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
    ] {
        let error = http(met(move |_| say(said)).await);
        assert!(matches!(error, HttpError::Broken { .. }), "{said:?}: {error}");
    }
}

#[tokio::test]
async fn a_chain_that_is_no_header_is_refused() {
    let name = "TCB-Info-Issuer-Chain";
    for garbage in ["%", "%4", "%zz%zz", "%00", "%FF%FE", "plain text", ""] {
        let error = document(met(move |own| say(found(&[(name, garbage)], &tcb_info(own)))).await);
        assert!(matches!(error, DocumentError::Header { .. } | DocumentError::Pem(_)), "{garbage}: {error}");
    }
    let error = document(met(move |own| say(found(&[], &tcb_info(own)))).await);
    assert!(matches!(error, DocumentError::Header { reason: "is missing", .. }), "{error}");
    let twice = move |own: &QuoteCollateralV3| {
        let chain = encoded(&own.tcb_info_issuer_chain);
        say(found(&[(name, &chain), (name, &chain)], &tcb_info(own)))
    };
    assert!(matches!(document(met(twice).await), DocumentError::Header { reason: "is there twice", .. }));
    let cut_off = move |own: &QuoteCollateralV3| {
        let chain = encoded(&own.tcb_info_issuer_chain[..400]);
        say(found(&[(name, &chain)], &tcb_info(own)))
    };
    assert!(matches!(document(met(cut_off).await), DocumentError::Pem(_)));
}

#[tokio::test]
async fn a_chain_of_somebody_else_is_refused() {
    let with_chain = |chain: String| {
        move |own: &QuoteCollateralV3| {
            say(found(&[("TCB-Info-Issuer-Chain", &encoded(&chain))], &tcb_info(own)))
        }
    };
    let own = simulated(Profile::default());
    // An authority in the signer's place, and the root itself.
    let error = document(met(with_chain(own.collateral().pck_crl_issuer_chain.clone())).await);
    assert!(matches!(error, DocumentError::Role { .. }), "{error}");
    let root = tdx_simulator::pem(own.root_der());
    assert!(matches!(document(met(with_chain(root)).await), DocumentError::Role { .. }));
    // Another simulator's signer, whose names are the same, with that simulator's root; and Intel's.
    let other = tdx_simulator::SimulatedPlatform::new(&[10; 32], NOW_S).unwrap();
    let error = document(met(with_chain(other.collateral().tcb_info_issuer_chain.clone())).await);
    assert!(matches!(error, DocumentError::AnotherRoot), "{error}");
    let both = format!(
        "{}{}",
        tdx_simulator::pem(&other.certificates().tcb_signer),
        tdx_simulator::pem(own.root_der())
    );
    assert!(matches!(document(met(with_chain(both)).await), DocumentError::AnotherRoot));
    let intel: QuoteCollateralV3 =
        serde_json::from_str(include_str!("../../../../verifier/fixtures/tdx_quote_collateral.json"))
            .unwrap();
    assert!(matches!(
        document(met(with_chain(intel.tcb_info_issuer_chain)).await),
        DocumentError::AnotherRoot
    ));
}

#[tokio::test]
async fn a_document_that_was_changed_or_is_anothers_is_refused() {
    let with_body = |change: fn(&QuoteCollateralV3) -> Vec<u8>| {
        move |own: &QuoteCollateralV3| {
            let chain = encoded(&own.tcb_info_issuer_chain);
            say(found(&[("TCB-Info-Issuer-Chain", &chain)], &change(own)))
        }
    };
    for change in [
        |_: &QuoteCollateralV3| Vec::new(),
        |_: &QuoteCollateralV3| b"{}".to_vec(),
        |_: &QuoteCollateralV3| vec![b'['; 50_000],
        |own: &QuoteCollateralV3| own.tcb_info.clone().into_bytes(),
        |own: &QuoteCollateralV3| {
            format!("{{\"tcbInfo\":{},\"signature\":\"zz\"}}", own.tcb_info).into_bytes()
        },
        |own: &QuoteCollateralV3| {
            let signed = String::from_utf8(tcb_info(own)).unwrap();
            signed.replace("\"signature\"", "\"signature\":\"00\",\"signature\"").into_bytes()
        },
        |own: &QuoteCollateralV3| tcb_info(own)[..1_000].to_vec(),
    ] {
        let error = document(met(with_body(change)).await);
        assert!(matches!(error, DocumentError::Envelope { .. }), "{error}");
    }
    let error = document(
        met(with_body(|own| format!("{{\"tcbInfo\":{},\"signature\":\"00\"}}", own.tcb_info).into())).await,
    );
    assert!(matches!(error, DocumentError::Signature(_)), "{error}");
    let raised = |own: &QuoteCollateralV3| {
        let text = String::from_utf8(tcb_info(own)).unwrap();
        let changed = text.replace("UpToDate", "Revoked");
        assert_ne!(text, changed);
        changed.into_bytes()
    };
    assert!(matches!(document(met(with_body(raised)).await), DocumentError::Signature(_)));
    // The same object with a space: no longer the text that was signed, and not one the Attestor reads.
    let spaced = |own: &QuoteCollateralV3| {
        String::from_utf8(tcb_info(own)).unwrap().replacen("\"version\":", "\"version\": ", 1).into_bytes()
    };
    assert!(matches!(document(met(with_body(spaced)).await), DocumentError::Text(_)));
    // Members that a later API may add, and spaces around the members, change nothing.
    let machine = simulated(Profile::default());
    let server = Server::start(None).await;
    let own = machine.collateral().clone();
    server.does(move |path| {
        let QuoteCollateralV3 { tcb_info, tcb_info_signature, .. } = &own;
        let signature = hex::encode_upper(tcb_info_signature);
        let body =
            format!("{{ \"more\": [1], \"signature\": \"{signature}\",\n \"tcbInfo\": {tcb_info} }}\n");
        let chain = encoded(&own.tcb_info_issuer_chain);
        match path.contains("/tcb?") {
            true => say(found(&[("SGX-TCB-Info-Issuer-Chain", &chain)], body.as_bytes())),
            false => say(honest(&own, path)),
        }
    });
    let got = server.pccs(machine.root_der()).collateral(&platform_of(&machine), NOW_S).await.unwrap();
    assert_eq!(got, *machine.collateral());
}

#[tokio::test]
async fn sound_documents_of_other_platforms_and_other_times_are_refused() {
    let server = Server::start(None).await;
    let machine = simulated(Profile::default());
    let platform = platform_of(&machine);
    let pccs = server.pccs(machine.root_der());
    let refusal = async |profile: Profile| {
        let other = simulated(profile);
        assert_eq!(other.root_der(), machine.root_der());
        server.serves(other.collateral());
        match pccs.collateral(&platform, NOW_S).await.unwrap_err() {
            CollateralError::Document { kind, cause, .. } => (kind, cause),
            other => panic!("{other}"),
        }
    };
    let (kind, error) = refusal(Profile { fmspc: [1; 6], ..Profile::default() }).await;
    assert!(kind == Kind::TcbInfo && matches!(error, DocumentError::OtherPlatform { .. }), "{error}");
    let (kind, error) =
        refusal(Profile { issuer: tdx_simulator::PckIssuer::Processor, ..Profile::default() }).await;
    assert!(kind == Kind::PckCrl && matches!(error, DocumentError::Role { .. }), "{error}");
    let over = Period { from_s: None, until_s: Some(NOW_S - 1) };
    for (expected, periods) in [
        (Kind::RootCrl, Periods { root_crl: over, ..Periods::default() }),
        (Kind::PckCrl, Periods { pck_crl: over, ..Periods::default() }),
        (Kind::PckCrl, Periods { issuer: over, ..Periods::default() }),
        (Kind::TcbInfo, Periods { tcb_info: over, ..Periods::default() }),
        (Kind::TcbInfo, Periods { tcb_signer: over, ..Periods::default() }),
        (Kind::QeIdentity, Periods { qe_identity: over, ..Periods::default() }),
    ] {
        let (kind, error) = refusal(Profile { periods, ..Profile::default() }).await;
        assert!(kind == expected && matches!(error, DocumentError::Ended { .. }), "{kind}: {error}");
    }
    // A list in another's place.
    let mut swapped = machine.collateral().clone();
    std::mem::swap(&mut swapped.pck_crl, &mut swapped.root_ca_crl);
    server.serves(&swapped);
    let error = pccs.collateral(&platform, NOW_S).await.unwrap_err();
    assert!(matches!(
        error,
        CollateralError::Document { kind: Kind::PckCrl, cause: DocumentError::Signature(_), .. }
    ));
    // And a platform that asks for what the server has, but is another.
    let foreign = collateral::Platform { fmspc: Bytes([2; 6]), ..platform };
    server.serves(machine.collateral());
    assert!(pccs.collateral(&foreign, NOW_S).await.is_err());
    assert!(pccs.collateral(&platform, NOW_S + 31 * DAY_S).await.is_err());
    assert!(pccs.collateral(&platform, NOW_S).await.is_ok());
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let server = Server::start(None).await;
    let settings = Settings::of(collateral::Address::parse("http://127.0.0.1:1").unwrap());
    let machine = simulated(Profile::default());
    let pccs = Pccs::new(settings, machine.root_der()).unwrap();
    let error = pccs.collateral(&platform_of(&machine), NOW_S).await.unwrap_err();
    assert!(matches!(error, CollateralError::Http { cause: HttpError::Unreachable { .. }, .. }));
    assert!(error.to_string().contains("http://127.0.0.1:1 gave no PCK CRL"), "{error}");
    // A server without the root's list: the root says where that is.
    let own = machine.collateral().clone();
    server.does(move |path| match path.ends_with("rootcacrl") {
        true => say(status(404)),
        false => say(honest(&own, path)),
    });
    match server.pccs(machine.root_der()).collateral(&platform_of(&machine), NOW_S).await.unwrap_err() {
        CollateralError::Http { server, .. } => assert_eq!(server, "https://simulated-not-intel.invalid"),
        CollateralError::NoAuthorities { .. } => {}
        other => panic!("{other}"),
    }
    assert!(Pccs::new(server.settings(), INTEL_ROOT).is_ok());
    assert!(matches!(Pccs::new(server.settings(), &[1, 2, 3]), Err(CollateralError::Root { .. })));
    // Not one byte of what a signer signed for something else is of use: a signature by the right key on another text.
    let wrong = machine.sign_as(Signer::TcbSigner, b"something else");
    let mut changed = machine.collateral().clone();
    changed.tcb_info_signature = wrong.to_vec();
    server.serves(&changed);
    let error = server.pccs(machine.root_der()).collateral(&platform_of(&machine), NOW_S).await.unwrap_err();
    assert!(matches!(error, CollateralError::Document { cause: DocumentError::Signature(_), .. }), "{error}");
}
