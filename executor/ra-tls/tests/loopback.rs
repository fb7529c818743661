//! Both sides over loopback: honest, and against each adversary.
#![allow(clippy::unwrap_used)]

mod world;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contracts::SigningKey;
use ra_tls::admission::{Limits, Refusal};
use ra_tls::certificate::{CertificateError, Validity};
use ra_tls::evidence::{self, EvidenceError};
use ra_tls::{
    ALPN, AcceptError, Acceptor, ClientAuth, ConnectError, Connection, Connector, Identity, ServerLimits,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, ResolvesClientCert, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_eddsa_type};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, NamedGroup, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use world::{NOW_S, World, clock, key};

const LONG: Duration = Duration::from_secs(60);
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn an_honest_pair_speaks_over_the_hybrid_exchange() {
    let world = World::new(1);
    let acceptor = acceptor(&world, ClientAuth::None);
    let (served, connected) = meet(&acceptor, &connector(&world, None)).await;
    let (mut served, mut connected) = (served.unwrap(), connected.unwrap());
    assert_eq!(served.key_exchange(), Some(NamedGroup::X25519MLKEM768));
    assert_eq!(connected.key_exchange(), Some(NamedGroup::X25519MLKEM768));
    assert_eq!(served.session_key(), None);
    assert_eq!(served.channel_binding().unwrap(), connected.channel_binding().unwrap());
    connected.write_all(b"question").await.unwrap();
    connected.flush().await.unwrap();
    let mut read = [0; 8];
    served.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"question");
    assert_eq!(acceptor.connections(), 1);
    let first = served.channel_binding().unwrap();
    drop(served);
    assert_eq!(acceptor.connections(), 0);
    let (served, _) = meet(&acceptor, &connector(&world, None)).await;
    assert_ne!(served.unwrap().channel_binding().unwrap(), first);
}

#[tokio::test]
async fn a_session_key_arrives_and_is_asked_for() {
    let world = World::new(2);
    let session = Identity::session(key(99)).unwrap();
    for (auth, shown, seen) in [
        (ClientAuth::None, true, None),
        (ClientAuth::Optional, true, Some(session.public_key())),
        (ClientAuth::Optional, false, None),
        (ClientAuth::Required, true, Some(session.public_key())),
    ] {
        let connector = connector(&world, shown.then_some(&session));
        let (served, connected) = meet(&acceptor(&world, auth), &connector).await;
        assert_eq!(served.unwrap().session_key(), seen);
        connected.unwrap();
    }
    let (served, _) = meet(&acceptor(&world, ClientAuth::Required), &connector(&world, None)).await;
    assert!(matches!(served, Err(AcceptError::Handshake(_))));
}

/// Each is refused for its own reason.
#[tokio::test]
async fn whoever_is_not_the_expected_worker_is_refused() {
    let (world, other) = (World::new(3), World::new(4));
    let refused = |acceptor, expected| {
        let mut world = World::new(3);
        world.expected = expected;
        async move {
            match meet(&acceptor, &connector(&world, None)).await {
                (Err(AcceptError::Handshake(_)), Err(ConnectError::Evidence(error))) => error,
                outcome => panic!("{outcome:?}"),
            }
        }
    };
    // A worker of its own, at the address of another.
    let error = refused(acceptor(&other, ClientAuth::None), world.expected.clone()).await;
    assert!(matches!(error, EvidenceError::WrongWorker { .. }), "{error}");
    // The right claims, signed by a key that is not attested.
    let mut liar = World::new(3);
    liar.receipt = key(200);
    let error = refused(acceptor(&liar, ClientAuth::None), world.expected.clone()).await;
    assert_eq!(error, EvidenceError::BadSignature);
    // The right key on another network.
    let mut elsewhere = World::new(3);
    elsewhere.binding.network_id = -3;
    let error = refused(acceptor(&elsewhere, ClientAuth::None), world.expected.clone()).await;
    assert_eq!(error, EvidenceError::WrongNetwork { found: -3, expected: -239 });
    // An earlier registration.
    let mut earlier = World::new(3);
    earlier.binding.registration_seqno = 6;
    let error = refused(acceptor(&earlier, ClientAuth::None), world.expected.clone()).await;
    assert_eq!(error, EvidenceError::WrongRegistration { found: 6, expected: 7 });
    // A certificate of yesterday.
    let mut old = World::new(3);
    old.binding.validity = Validity::starting(NOW_S - 2 * evidence::MAX_VALIDITY_S);
    let error = refused(acceptor(&old, ClientAuth::None), world.expected.clone()).await;
    assert!(matches!(error, EvidenceError::Certificate(CertificateError::NotInForce { .. })), "{error}");
    // An attestation that is over.
    let mut over = world.expected.clone();
    over.attested_until_s = NOW_S;
    let error = refused(acceptor(&world, ClientAuth::None), over).await;
    assert!(matches!(error, EvidenceError::AttestationExpired { .. }), "{error}");
}

#[tokio::test]
async fn a_replayed_certificate_is_worth_nothing_without_its_key() {
    let world = World::new(5);
    let stolen = world.identity().certificate().to_vec();
    let (_, other) = rcgen_key();
    let config = evil_server(&[&TLS13], vec![stolen], other, &[ALPN]);
    let error = against(config, &connector(&world, None)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Handshake(_)), "{error}");
    assert!(error.to_string().contains("BadSignature"), "{error}");
}

#[tokio::test]
async fn stolen_evidence_does_not_fit_another_key() {
    let world = World::new(6);
    let (pair, other) = rcgen_key();
    let stolen =
        ra_tls::certificate::Certificate::parse(world.identity().certificate()).unwrap().evidence.unwrap();
    let certificate = rcgen_certificate(&pair, &world, vec![extension(&EVIDENCE, stolen, false)]);
    let config = evil_server(&[&TLS13], vec![certificate], other, &[ALPN]);
    assert_eq!(evidence_error(config, &world).await, EvidenceError::BadSignature);
}

#[tokio::test]
async fn a_certificate_of_another_maker_passes_and_each_fault_in_it_is_named() {
    let world = World::new(7);
    let (pair, certified) = rcgen_key();
    let public: [u8; 32] = pair.public_key_raw().try_into().unwrap();
    let evidence = || evidence::build(&world.binding, &public, &world.receipt);
    let unknown = |critical| extension(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0], critical);
    let serve = |extensions| {
        let certificate = rcgen_certificate(&pair, &world, extensions);
        evil_server(&[&TLS13], vec![certificate], certified.clone(), &[ALPN])
    };
    let good = serve(vec![unknown(false), extension(&EVIDENCE, evidence(), false)]);
    against(good, &connector(&world, None)).await.unwrap();

    let twice = serve(vec![extension(&EVIDENCE, evidence(), false), extension(&EVIDENCE, evidence(), false)]);
    assert_eq!(evidence_error(twice, &world).await, CertificateError::DuplicateEvidence.into());
    let critical = serve(vec![extension(&EVIDENCE, evidence(), false), unknown(true)]);
    assert_eq!(evidence_error(critical, &world).await, CertificateError::UnknownCriticalExtension.into());
    assert_eq!(evidence_error(serve(vec![]), &world).await, EvidenceError::Missing);
    let mut longer = evidence();
    longer.push(0);
    let longer = serve(vec![extension(&EVIDENCE, longer, false)]);
    assert_eq!(evidence_error(longer, &world).await, EvidenceError::Malformed);

    let certificate = rcgen_certificate(&pair, &world, vec![extension(&EVIDENCE, evidence(), false)]);
    let chain = vec![certificate, world.identity().certificate().to_vec()];
    let chain = evil_server(&[&TLS13], chain, certified.clone(), &[ALPN]);
    let refused = CertificateError::NotAlone { certificates: 2 };
    assert_eq!(evidence_error(chain, &world).await, refused.into());
}

#[tokio::test]
async fn a_key_of_another_kind_is_refused() {
    let world = World::new(8);
    let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let der = PrivatePkcs8KeyDer::from(pair.serialize_der());
    let signing = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der.into()).unwrap();
    let certificate = rcgen_certificate(&pair, &world, vec![]);
    let refused = evidence::verify(&certificate, &world.expected, NOW_S).unwrap_err();
    assert_eq!(refused, CertificateError::WrongKeyType.into());
    // A client that takes Ed25519 alone leaves such a server without a signature to make.
    let config = evil_server(&[&TLS13], vec![certificate], signing, &[ALPN]);
    let error = against(config, &connector(&world, None)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Handshake(_)), "{error}");
}

#[tokio::test]
async fn tls_1_2_is_refused_on_both_sides() {
    let world = World::new(9);
    let (pair, certified) = rcgen_key();
    let certificate = rcgen_certificate(&pair, &world, vec![]);
    let config = evil_server(&[&TLS12], vec![certificate], certified, &[ALPN]);
    let error = against(config, &connector(&world, None)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Handshake(_)), "{error}");
    let (served, connected) =
        from(&acceptor(&world, ClientAuth::None), evil_client(&[&TLS12], &[ALPN])).await;
    assert!(matches!(served, Err(AcceptError::Handshake(_))));
    connected.unwrap_err();
}

#[tokio::test]
async fn another_application_protocol_or_none_is_refused() {
    let world = World::new(10);
    let acceptor = acceptor(&world, ClientAuth::None);
    let (served, _) = from(&acceptor, evil_client(&[&TLS13], &[b"h2"])).await;
    assert!(matches!(served, Err(AcceptError::Handshake(_))));
    let (served, _) = from(&acceptor, evil_client(&[&TLS13], &[])).await;
    assert!(matches!(served, Err(AcceptError::WrongProtocol)));
    assert_eq!(acceptor.connections(), 0);

    let key = key(77);
    let made = world.certificate(&key, &world.binding, world.binding.validity);
    let config = |alpn: &[&[u8]]| evil_server(&[&TLS13], vec![made.clone()], dalek(&key), alpn);
    against(config(&[ALPN]), &connector(&world, None)).await.unwrap();
    let error = against(config(&[]), &connector(&world, None)).await.unwrap_err();
    assert!(matches!(error, ConnectError::WrongProtocol), "{error}");
    let error = against(config(&[b"h2"]), &connector(&world, None)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Handshake(_)), "{error}");
}

#[tokio::test]
async fn nothing_to_resume_with_is_given() {
    let world = World::new(11);
    let acceptor = acceptor(&world, ClientAuth::None);
    let tickets = Arc::new(Tickets::default());
    let mut config = evil_client(&[&TLS13], &[ALPN]);
    config.resumption = Resumption::store(Arc::clone(&tickets) as Arc<dyn ClientSessionStore>);
    config.enable_early_data = true;
    for _ in 0..2 {
        let (served, connected) = from(&acceptor, config.clone()).await;
        let (mut served, mut connected) = (served.unwrap(), connected.unwrap());
        // A ticket would come with, or before, the first answer.
        served.write_all(b"x").await.unwrap();
        served.flush().await.unwrap();
        connected.read_exact(&mut [0]).await.unwrap();
        assert_eq!(connected.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert!(!connected.get_ref().1.is_early_data_accepted());
    }
    assert!(tickets.asked.load(Ordering::SeqCst) >= 2);
    assert_eq!(tickets.given.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_clients_certificate_needs_its_key_its_form_and_no_company() {
    let world = World::new(12);
    let acceptor = acceptor(&world, ClientAuth::Required);
    let session = Identity::session(key(99)).unwrap();
    let with = |chain: Vec<Vec<u8>>, signing| {
        let mut config = evil_client(&[&TLS13], &[ALPN]);
        config.client_auth_cert_resolver = Arc::new(Shown(certified(chain, signing)));
        config
    };
    let stolen = with(vec![session.certificate().to_vec()], dalek(&key(98)));
    let (served, _) = from(&acceptor, stolen).await;
    let Err(AcceptError::Handshake(error)) = served else { panic!("{served:?}") };
    assert!(error.to_string().contains("BadSignature"), "{error}");
    let pair = with(vec![session.certificate().to_vec(), session.certificate().to_vec()], dalek(&key(99)));
    let (served, _) = from(&acceptor, pair).await;
    assert!(matches!(served, Err(AcceptError::Certificate(CertificateError::NotAlone { certificates: 2 }))));
    let worker = world.certificate(&key(97), &world.binding, world.binding.validity);
    let (served, _) = from(&acceptor, with(vec![worker], dalek(&key(97)))).await;
    assert!(matches!(served, Err(AcceptError::Certificate(CertificateError::UnexpectedEvidence))));
    let (served, _) = from(&acceptor, with(vec![vec![0x30, 0x03, 1, 2, 3]], dalek(&key(97)))).await;
    assert!(matches!(served, Err(AcceptError::Certificate(CertificateError::Malformed { .. }))));
}

#[tokio::test]
async fn a_new_certificate_serves_the_next_handshake() {
    let mut world = World::new(13);
    let acceptor = acceptor(&world, ClientAuth::None);
    world.binding.registration_seqno = 8;
    world.expected.registration_seqno = 8;
    let (_, connected) = meet(&acceptor, &connector(&world, None)).await;
    let refused = EvidenceError::WrongRegistration { found: 7, expected: 8 };
    assert!(matches!(connected, Err(ConnectError::Evidence(error)) if error == refused));
    acceptor.rotate(&world.identity());
    let (_, connected) = meet(&acceptor, &connector(&world, None)).await;
    connected.unwrap();
}

/// Time is tokio's, which jumps to the next timer when nothing else is left to do.
#[tokio::test(start_paused = true)]
async fn a_slow_handshake_ends_at_its_deadline_on_both_sides() {
    let world = World::new(14);
    let acceptor = acceptor(&world, ClientAuth::None);
    let (mut ours, theirs) = tokio::io::duplex(1 << 12);
    let dripping = tokio::spawn(async move {
        for byte in [22, 3, 1, 2, 0].into_iter().chain(std::iter::repeat_n(0, 512)) {
            tokio::time::sleep(Duration::from_millis(900)).await;
            if ours.write_all(&[byte]).await.is_err() {
                break;
            }
        }
    });
    let started = tokio::time::Instant::now();
    let served = acceptor.accept(theirs, LOCALHOST).await;
    assert!(matches!(served, Err(AcceptError::Timeout(_)) | Err(AcceptError::Handshake(_))), "{served:?}");
    assert!(started.elapsed() <= ServerLimits::default().handshake_timeout + Duration::from_millis(1));
    assert_eq!(acceptor.connections(), 0);
    dripping.await.unwrap();

    let (ours, _silent) = tokio::io::duplex(1 << 12);
    let connected = connector(&world, None).connect(ours).await;
    assert!(matches!(connected, Err(ConnectError::Timeout(LONG))), "{connected:?}");
    let (_silent, theirs) = tokio::io::duplex(1 << 12);
    let served = acceptor.accept(theirs, LOCALHOST).await;
    assert!(matches!(served, Err(AcceptError::Timeout(_))), "{served:?}");
    assert_eq!(acceptor.connections(), 0);
}

#[tokio::test]
async fn open_connections_count_until_they_are_dropped() {
    let world = World::new(15);
    let limits = ServerLimits {
        admission: Limits { connections: 3, connections_per_peer: 2, ..Limits::default() },
        ..ServerLimits::default()
    };
    let acceptor = Acceptor::new(&world.identity(), ClientAuth::None, limits, clock()).unwrap();
    let connector = connector(&world, None);
    let (first, _client) = meet(&acceptor, &connector).await;
    let (second, _client) = meet(&acceptor, &connector).await;
    let (first, _second) = (first.unwrap(), second.unwrap());
    let (third, refused) = meet(&acceptor, &connector).await;
    assert!(matches!(third, Err(AcceptError::Refused(Refusal::PeerFull { limit: 2 }))));
    refused.unwrap_err();
    drop(first);
    let (again, _client) = meet(&acceptor, &connector).await;
    let _again = again.unwrap();
}

/// Garbage, silence and half-said hellos from one address, while another buys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_bad_handshakes_does_not_keep_an_honest_client_out() {
    let world = World::new(16);
    let limits = ServerLimits { handshake_timeout: LONG, ..ServerLimits::default() };
    let acceptor = Acceptor::new(&world.identity(), ClientAuth::None, limits, clock()).unwrap();
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (limited, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let serving = {
        let (acceptor, limited, broken) = (acceptor.clone(), Arc::clone(&limited), Arc::clone(&broken));
        tokio::spawn(async move {
            loop {
                let (tcp, from) = listener.accept().await.unwrap();
                let (acceptor, limited, broken) =
                    (acceptor.clone(), Arc::clone(&limited), Arc::clone(&broken));
                tokio::spawn(async move {
                    match acceptor.accept(tcp, from.ip()).await {
                        Ok(mut connection) => {
                            let mut byte = [0];
                            connection.read_exact(&mut byte).await.unwrap();
                            connection.write_all(&byte).await.unwrap();
                            connection.shutdown().await.unwrap();
                        }
                        Err(AcceptError::Refused(_)) => _ = limited.fetch_add(1, Ordering::SeqCst),
                        Err(_) => _ = broken.fetch_add(1, Ordering::SeqCst),
                    }
                });
            }
        })
    };
    let flood: Vec<_> = (0..4_u8)
        .map(|kind| {
            tokio::spawn(async move {
                let mut silent = Vec::new();
                for _ in 0..100 {
                    let Ok(mut tcp) = dial(address, [127, 0, 0, 2]).await else { continue };
                    let said: &[u8] = match kind {
                        0 => b"GET / HTTP/1.1\r\n\r\n",
                        1 => &[22, 3, 1, 0, 5, 1, 0, 0, 1, 0],
                        2 => &[0xff; 600],
                        _ => &[22, 3, 1],
                    };
                    let _ = tcp.write_all(said).await;
                    silent.push(tcp);
                }
                silent
            })
        })
        .collect();
    let connector = connector(&world, None);
    for value in 0..20 {
        let tcp = dial(address, [127, 0, 0, 1]).await.unwrap();
        let mut connection = connector.connect(tcp).await.unwrap();
        connection.write_all(&[value]).await.unwrap();
        let mut byte = [0];
        connection.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte[0], value);
    }
    let mut silent = Vec::new();
    for part in flood {
        silent.push(part.await.unwrap());
    }
    // While the flood's connections are held open.
    let mut connection = connector.connect(dial(address, [127, 0, 0, 1]).await.unwrap()).await.unwrap();
    connection.write_all(b"x").await.unwrap();
    connection.read_exact(&mut [0]).await.unwrap();
    assert!(limited.load(Ordering::SeqCst) > 0 && broken.load(Ordering::SeqCst) > 0);
    assert!(acceptor.connections() <= 2 * Limits::default().handshakes_per_peer + 1);
    serving.abort();
}

#[tokio::test]
async fn no_private_key_is_ever_shown() {
    let world = World::new(0xa7);
    let session_secret = key(0xc9);
    let session = Identity::session(session_secret.clone()).unwrap();
    let mut tls_secret = [0; 32];
    StdRng::seed_from_u64(5).fill_bytes(&mut tls_secret);
    let identity = Identity::worker(&world.binding, &world.receipt, &mut StdRng::seed_from_u64(5)).unwrap();
    assert_eq!(identity.public_key(), SigningKey::from_bytes(&tls_secret).verifying_key().to_bytes());
    let acceptor = Acceptor::new(&identity, ClientAuth::Required, ServerLimits::default(), clock()).unwrap();
    let connector = connector(&world, Some(&session));
    let (served, connected) = meet(&acceptor, &connector).await;
    let mut wrong = World::new(0xa7);
    wrong.expected.network_id = 1;
    let (refused, refusing) = meet(&acceptor, &self::connector(&wrong, Some(&session))).await;
    let (refused, refusing) = (refused.unwrap_err(), refusing.unwrap_err());
    let shown = [
        format!("{identity:?} {session:?} {acceptor:?} {connector:?}"),
        format!("{:?} {:?}", served.unwrap(), connected.unwrap()),
        format!("{refused:?} {refused} {refusing:?} {refusing}"),
    ]
    .concat()
    .to_lowercase();
    for secret in [world.receipt.to_bytes(), session_secret.to_bytes(), tls_secret] {
        let decimals = secret[..6].iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        let hexadecimal = secret[..6].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert!(!shown.contains(&decimals) && !shown.contains(&hexadecimal), "{shown}");
    }
    assert!(shown.contains("identity") && shown.contains("expected 1"));
}

fn acceptor(world: &World, auth: ClientAuth) -> Acceptor {
    Acceptor::new(&world.identity(), auth, ServerLimits::default(), clock()).unwrap()
}

fn connector(world: &World, session: Option<&Identity>) -> Connector {
    Connector::new(world.expected.clone(), session, LONG, clock()).unwrap()
}

async fn transport() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(address));
    (accepted.unwrap().0, connected.unwrap())
}

async fn dial(to: SocketAddr, from: [u8; 4]) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::from(from), 0).into())?;
    socket.connect(to).await
}

type Served = Result<Connection<TcpStream>, AcceptError>;

async fn meet(
    acceptor: &Acceptor,
    connector: &Connector,
) -> (Served, Result<Connection<TcpStream>, ConnectError>) {
    let (theirs, ours) = transport().await;
    tokio::join!(acceptor.accept(theirs, LOCALHOST), connector.connect(ours))
}

/// Our client against any server.
async fn against(config: ServerConfig, connector: &Connector) -> Result<Connection<TcpStream>, ConnectError> {
    let (theirs, ours) = transport().await;
    let server = TlsAcceptor::from(Arc::new(config));
    tokio::join!(server.accept(theirs), connector.connect(ours)).1
}

async fn evidence_error(config: ServerConfig, world: &World) -> EvidenceError {
    match against(config, &connector(world, None)).await {
        Err(ConnectError::Evidence(error)) => error,
        outcome => panic!("{outcome:?}"),
    }
}

/// Any client against our server.
async fn from(
    acceptor: &Acceptor,
    config: ClientConfig,
) -> (Served, std::io::Result<tokio_rustls::client::TlsStream<TcpStream>>) {
    let (theirs, ours) = transport().await;
    let name = ServerName::try_from("worker.invalid").unwrap();
    let client = TlsConnector::from(Arc::new(config));
    tokio::join!(acceptor.accept(theirs, LOCALHOST), client.connect(name, ours))
}

const EVIDENCE: [u64; 6] = [2, 23, 133, 5, 4, 9];

fn extension(oid: &[u64], value: Vec<u8>, critical: bool) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, value);
    extension.set_criticality(critical);
    extension
}

fn rcgen_key() -> (KeyPair, Arc<dyn rustls::sign::SigningKey>) {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let signing = any_eddsa_type(&PrivatePkcs8KeyDer::from(pair.serialize_der())).unwrap();
    (pair, signing)
}

fn rcgen_certificate(pair: &KeyPair, world: &World, extensions: Vec<CustomExtension>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    let at = |unix_s: u64| time::OffsetDateTime::from_unix_timestamp(unix_s as i64).unwrap();
    params.not_before = at(world.binding.validity.not_before_s);
    params.not_after = at(world.binding.validity.not_after_s);
    params.custom_extensions = extensions;
    params.self_signed(pair).unwrap().der().to_vec()
}

/// An Ed25519 key as another library holds it: RFC 8410's private key structure.
fn dalek(key: &SigningKey) -> Arc<dyn rustls::sign::SigningKey> {
    let prefix =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    any_eddsa_type(&PrivatePkcs8KeyDer::from([&prefix[..], &key.to_bytes()].concat())).unwrap()
}

fn certified(chain: Vec<Vec<u8>>, signing: Arc<dyn rustls::sign::SigningKey>) -> Arc<CertifiedKey> {
    Arc::new(CertifiedKey::new(chain.into_iter().map(CertificateDer::from).collect(), signing))
}

fn evil_server(
    versions: &[&'static SupportedProtocolVersion],
    chain: Vec<Vec<u8>>,
    signing: Arc<dyn rustls::sign::SigningKey>,
    alpn: &[&[u8]],
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shown(certified(chain, signing))));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// A client that believes anybody.
fn evil_client(versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// Counts what a resuming client asks for and is given.
#[derive(Debug, Default)]
struct Tickets {
    asked: AtomicUsize,
    given: AtomicUsize,
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {
        self.given.fetch_add(1, Ordering::SeqCst);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        None
    }
}
