//! A server over https proves who it is, by the system's authorities or by the operator's own.

use std::sync::Arc;

use collateral::{Address, CollateralError, HttpError, Pccs, Settings};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use tdx_simulator::Profile;
use tokio_rustls::TlsAcceptor;

use crate::server::Server;
use crate::{NOW_S, platform_of, simulated};

/// A server called `localhost` and its authority's PEM.
async fn server() -> (Server, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    (Server::start(Some(TlsAcceptor::from(Arc::new(config)))).await, authority.pem())
}

#[tokio::test]
async fn the_operators_authority_counts_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (server, authority) = server().await;
    let (_, another) = self::server().await;
    let machine = simulated(Profile::default());
    let platform = platform_of(&machine);
    server.serves(machine.collateral());
    let with = |address: String, pem: &str| {
        let file = folder.path().join("authority.pem");
        std::fs::write(&file, pem).unwrap();
        let address = Address::parse(&address).unwrap();
        let settings = Settings { authority_file: Some(file), ..Settings::of(address) };
        Pccs::new(settings, machine.root_der())
    };
    let port = server.address.port();
    let right = format!("https://localhost:{port}/");
    let got = with(right.clone(), &authority).unwrap().collateral(&platform, NOW_S).await.unwrap();
    assert_eq!(got, *machine.collateral());
    for (address, pem) in
        [(right.clone(), another.as_str()), (format!("https://127.0.0.1:{port}/"), &authority)]
    {
        let error = with(address, pem).unwrap().collateral(&platform, NOW_S).await.unwrap_err();
        assert!(matches!(error, CollateralError::Http { cause: HttpError::Tls { .. }, .. }), "{error}");
    }
    for bad in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(matches!(with(right.clone(), bad), Err(CollateralError::AuthorityFile { .. })), "{bad}");
    }
    // The system's authorities know nothing of this one, where there are any.
    let address = Address::parse(&right).unwrap();
    match Pccs::new(Settings::of(address), machine.root_der()) {
        Ok(pccs) => assert!(pccs.collateral(&platform, NOW_S).await.is_err()),
        Err(error) => assert!(matches!(error, CollateralError::NoAuthorities { .. }), "{error}"),
    }
}
