//! An HTTP server that says whatever a test wants, byte for byte.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use collateral::{Address, Limits, Pccs, Settings};
use dcap_qvl::QuoteCollateralV3;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the server does after it has read a request.
#[derive(Clone)]
pub(crate) enum Act {
    Say(Vec<u8>),
    /// Says it again and again until nobody listens.
    Repeat(Vec<u8>),
    /// Says nothing and keeps the connection.
    Hang,
}

type Script = Arc<dyn Fn(&str) -> Vec<Act> + Send + Sync>;

/// Ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Arc::new(|_| vec![Act::Say(status(404))])));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let server = Self { address, script: script.clone(), asked: asked.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, asked, tls) = (script.clone(), asked.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answer(stream, &script, &asked).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                answer(stream, &script, &asked).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    pub(crate) fn does(&self, script: impl Fn(&str) -> Vec<Act> + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    /// Answers as a PCCS that has this.
    pub(crate) fn serves(&self, collateral: &QuoteCollateralV3) {
        let collateral = collateral.clone();
        self.does(move |path| vec![Act::Say(honest(&collateral, path))]);
    }

    /// Paths that were asked for since the last call.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    pub(crate) fn settings(&self) -> Settings {
        let address = Address::parse(&format!("http://{}", self.address)).unwrap();
        let limits = Limits { request_ms: 60_000, body_bytes: 64 << 10, head_bytes: 16 << 10 };
        Settings { limits, ..Settings::of(address) }
    }

    pub(crate) fn pccs(&self, root_der: &[u8]) -> Pccs {
        Pccs::new(self.settings(), root_der).unwrap()
    }
}

async fn answer<S>(mut stream: S, script: &Mutex<Script>, asked: &Mutex<Vec<String>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(1) => request.push(byte[0]),
            _ => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    let mut words = request.split(' ');
    assert_eq!(words.next(), Some("GET"));
    let path = words.next().unwrap().to_owned();
    assert!(request.to_ascii_lowercase().contains("\r\nhost: "), "{request}");
    asked.lock().unwrap().push(path.clone());
    let acts = script.lock().unwrap().clone()(&path);
    for act in acts {
        match act {
            Act::Say(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Act::Repeat(bytes) => while stream.write_all(&bytes).await.is_ok() {},
            Act::Hang => std::future::pending().await,
        }
    }
    // The client may have left already.
    let _ = stream.shutdown().await;
}

pub(crate) fn status(code: u16) -> Vec<u8> {
    format!("HTTP/1.1 {code} Because\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

pub(crate) fn encoded(chain: &str) -> String {
    chain
        .bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() { char::from(byte).into() } else { format!("%{byte:02X}") }
            },
        )
        .collect()
}

/// 200 with this body.
pub(crate) fn found(headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = "HTTP/1.1 200 OK\r\n".to_owned();
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    [head.as_bytes(), body].concat()
}

pub(crate) fn tcb_info(collateral: &QuoteCollateralV3) -> Vec<u8> {
    let QuoteCollateralV3 { tcb_info, tcb_info_signature, .. } = collateral;
    format!("{{\"tcbInfo\":{tcb_info},\"signature\":\"{}\"}}", hex::encode(tcb_info_signature)).into_bytes()
}

/// As a PCCS answers.
pub(crate) fn honest(collateral: &QuoteCollateralV3, path: &str) -> Vec<u8> {
    let (name, query) = path.split_once('?').unwrap_or((path, ""));
    match name {
        "/sgx/certification/v4/pckcrl" => {
            assert!(["ca=platform&encoding=der", "ca=processor&encoding=der"].contains(&query), "{query}");
            let chain = encoded(&collateral.pck_crl_issuer_chain);
            found(&[("SGX-PCK-CRL-Issuer-Chain", &chain)], &collateral.pck_crl)
        }
        "/sgx/certification/v4/rootcacrl" => found(&[], hex::encode(&collateral.root_ca_crl).as_bytes()),
        "/tdx/certification/v4/tcb" => {
            let chain = encoded(&collateral.tcb_info_issuer_chain);
            found(&[("TCB-Info-Issuer-Chain", &chain)], &tcb_info(collateral))
        }
        "/tdx/certification/v4/qe/identity" => {
            let QuoteCollateralV3 { qe_identity, qe_identity_signature, .. } = collateral;
            let signature = hex::encode(qe_identity_signature);
            let body = format!("{{\"enclaveIdentity\":{qe_identity},\"signature\":\"{signature}\"}}");
            let chain = encoded(&collateral.qe_identity_issuer_chain);
            found(&[("SGX-Enclave-Identity-Issuer-Chain", &chain)], body.as_bytes())
        }
        _ => status(404),
    }
}
