//! Evidence as signed texts that can be changed one by one, and what the Attestor and dcap-qvl make of it.

use contracts::attestor::{
    AttestorStorage, Bytes, P256Signature, PckPlatform, PckStatement, Pieces, PostAuthority, PostCrl,
    PostQeIdentity, PostTcbInfo, QuoteProof, Serial, TdFormat, VerifyQuote,
};
use contracts::{Cell, HashBytes, Message, Ref, StdAddr};
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::QuoteVerifier;
use prover::certificate::Certificate;
use prover::collateral::postings;
use prover::crl::RevocationList;
use prover::qe_identity::QeIdentityDocument;
use prover::quote::Quote;
use prover::signature::proven;
use prover::statement::{pck_text, qe_statement, qe_text, td_fields, td_text};
use prover::tcb_info::TcbInfoDocument;
use prover::trust::{Names, attestor_storage};
use sha2::{Digest, Sha256};
use tdx_simulator::{Profile, QuoteParts, Signer, SimulatedPlatform, TdIdentity, pem, x509};
use tycho_types::dict::Dict;

use crate::bench::{Bench, Outcome, cell_of};

/// Unix time at which platforms are made.
pub(crate) const NOW: u32 = 1_800_000_000;

/// A signed text, by its place in the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Report,
    QeReport,
    Pck,
    Issuer,
    TcbSigner,
    RootCrl,
    PckCrl,
    TcbInfo,
    QeIdentity,
}

pub(crate) const PARTS: [Part; 9] = [
    Part::Report,
    Part::QeReport,
    Part::Pck,
    Part::Issuer,
    Part::TcbSigner,
    Part::RootCrl,
    Part::PckCrl,
    Part::TcbInfo,
    Part::QeIdentity,
];

/// Those that the contract puts together itself.
const STATEMENTS: [Part; 3] = [Part::Report, Part::QeReport, Part::Pck];

impl Part {
    pub(crate) fn signer(self) -> Signer {
        match self {
            Self::Report => Signer::AttestationKey,
            Self::QeReport => Signer::Pck,
            Self::Pck | Self::PckCrl => Signer::PckIssuer,
            Self::Issuer | Self::TcbSigner | Self::RootCrl => Signer::Root,
            Self::TcbInfo | Self::QeIdentity => Signer::TcbSigner,
        }
    }

    pub(crate) fn is_der(self) -> bool {
        matches!(self, Self::Pck | Self::Issuer | Self::TcbSigner | Self::RootCrl | Self::PckCrl)
    }

    pub(crate) fn is_json(self) -> bool {
        matches!(self, Self::TcbInfo | Self::QeIdentity)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) bytes: Vec<u8>,
    /// r ‖ s.
    pub(crate) signature: [u8; 64],
    /// Where the contract is to be given another piece; by default where the sound text is cut.
    pub(crate) cuts: Option<Vec<usize>>,
}

/// Everything a verdict rests on, but the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evidence {
    pub(crate) texts: [Text; 9],
    pub(crate) attestation_key: [u8; 64],
    pub(crate) authentication_data: Vec<u8>,
}

impl Evidence {
    pub(crate) fn text(&self, part: Part) -> &Text {
        &self.texts[part as usize]
    }

    pub(crate) fn text_mut(&mut self, part: Part) -> &mut Text {
        &mut self.texts[part as usize]
    }

    fn of(platform: &SimulatedPlatform) -> Self {
        let parts = platform.quote_parts(&[9; 64], &TdIdentity::of_image("worker"));
        let collateral = platform.collateral();
        let text = |bytes: &[u8], signature: [u8; 64]| Text { bytes: bytes.to_vec(), signature, cuts: None };
        let certificate = |der: &[u8]| {
            let certificate = Certificate::from_der(der).unwrap();
            text(&certificate.signed.bytes, certificate.signature)
        };
        let list = |der: &[u8]| {
            let list = RevocationList::from_der(der).unwrap();
            text(&list.signed.bytes, list.signature)
        };
        let document = |json: &str, signature: &[u8]| text(json.as_bytes(), signature.try_into().unwrap());
        Self {
            texts: [
                text(&parts.signed, parts.signature),
                text(&parts.qe_report, parts.qe_report_signature),
                certificate(&platform.certificates().pck),
                certificate(&platform.certificates().pck_issuer),
                certificate(&platform.certificates().tcb_signer),
                list(&collateral.root_ca_crl),
                list(&collateral.pck_crl),
                document(&collateral.tcb_info, &collateral.tcb_info_signature),
                document(&collateral.qe_identity, &collateral.qe_identity_signature),
            ],
            attestation_key: parts.attestation_key,
            authentication_data: parts.authentication_data,
        }
    }

    fn der(&self, part: Part) -> Vec<u8> {
        let text = self.text(part);
        x509(&text.bytes, &text.signature).unwrap_or_else(|_| text.bytes.clone())
    }

    pub(crate) fn raw_quote(&self, root_der: &[u8]) -> Vec<u8> {
        QuoteParts {
            signed: self.text(Part::Report).bytes.clone(),
            signature: self.text(Part::Report).signature,
            attestation_key: self.attestation_key,
            qe_report: self.text(Part::QeReport).bytes.clone(),
            qe_report_signature: self.text(Part::QeReport).signature,
            authentication_data: self.authentication_data.clone(),
            pck_chain_pem: [pem(&self.der(Part::Pck)), pem(&self.der(Part::Issuer)), pem(root_der)].concat(),
        }
        .encode()
    }

    pub(crate) fn collateral(&self, root_der: &[u8]) -> QuoteCollateralV3 {
        let chain = |part| format!("{}{}", pem(&self.der(part)), pem(root_der));
        let json = |part| String::from_utf8_lossy(&self.text(part).bytes).into_owned();
        QuoteCollateralV3 {
            pck_crl_issuer_chain: chain(Part::Issuer),
            root_ca_crl: self.der(Part::RootCrl),
            pck_crl: self.der(Part::PckCrl),
            tcb_info_issuer_chain: chain(Part::TcbSigner),
            tcb_info: json(Part::TcbInfo),
            tcb_info_signature: self.text(Part::TcbInfo).signature.to_vec(),
            qe_identity_issuer_chain: chain(Part::TcbSigner),
            qe_identity: json(Part::QeIdentity),
            qe_identity_signature: self.text(Part::QeIdentity).signature.to_vec(),
            pck_certificate_chain: None,
        }
    }
}

/// A platform, its sound evidence, and an Attestor that holds all of its collateral.
pub(crate) struct World {
    pub(crate) platform: SimulatedPlatform,
    pub(crate) evidence: Evidence,
    pub(crate) empty: AttestorStorage,
    pub(crate) full: AttestorStorage,
    cuts: [Vec<usize>; 9],
    proofs: [(Ref<Pieces>, Ref<P256Signature>); 9],
    revoked: [Dict<Serial, bool>; 2],
    proof: QuoteProof,
    format: TdFormat,
}

/// What was accepted, in the terms of both verifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) report_data: [u8; 64],
    pub(crate) ppid: Vec<u8>,
    pub(crate) up_to_date: bool,
}

/// What the Attestor accepted, and the evidence it did so on: of texts that it puts together from what varies, those that
/// it hashed.
pub(crate) struct Shown {
    pub(crate) accepted: Accepted,
    pub(crate) evidence: Evidence,
}

impl World {
    pub(crate) fn new(bench: &Bench, seed: [u8; 32], profile: Profile) -> Self {
        let platform = SimulatedPlatform::with_profile(&seed, u64::from(NOW), profile).unwrap();
        let evidence = Evidence::of(&platform);
        let empty = attestor_storage(platform.root_der(), &names()).unwrap();
        let mut full = empty.clone();
        for posting in postings(platform.collateral(), &empty, 1).unwrap() {
            let outcome = bench.send(&cell_of(&full), posting.to_cell().unwrap(), NOW);
            assert!(outcome.succeeded, "{}: {:?}", posting.what(), outcome.exit_code);
            full = outcome.storage();
        }
        let quote = Quote::parse(&evidence.raw_quote(platform.root_der())).unwrap();
        let issuer = Certificate::from_der(&platform.certificates().pck_issuer).unwrap();
        let certificate = |part| Certificate::from_der(&evidence.der(part)).unwrap().signed.pieces;
        let list = |part| RevocationList::from_der(&evidence.der(part)).unwrap();
        let json = |part| String::from_utf8(evidence.text(part).bytes.clone()).unwrap();
        // Report, QE report and PCK certificate are not sent as texts: any cuts will do.
        let anyhow = |part| cut(&evidence.text(part).bytes, &[]);
        let pieces = [
            anyhow(Part::Report),
            anyhow(Part::QeReport),
            anyhow(Part::Pck),
            issuer.signed.pieces,
            certificate(Part::TcbSigner),
            list(Part::RootCrl).signed.pieces,
            list(Part::PckCrl).signed.pieces,
            TcbInfoDocument::parse(&json(Part::TcbInfo)).unwrap().signed.pieces,
            QeIdentityDocument::parse(&json(Part::QeIdentity)).unwrap().signed.pieces,
        ];
        let mut cuts = pieces.clone().map(|pieces| cuts_of(&pieces));
        for part in STATEMENTS {
            cuts[part as usize] = Vec::new();
        }
        let proofs = PARTS.map(|part| {
            let text = evidence.text(part);
            let digest = Sha256::digest(&text.bytes).into();
            let signature = proven(&digest, &text.signature, &platform.public_key(part.signer())).unwrap();
            (Ref::new(pieces[part as usize].clone()).unwrap(), Ref::new(signature).unwrap())
        });
        let revoked = [Part::RootCrl, Part::PckCrl].map(|part| list(part).revoked_set().unwrap());
        let (proof, format) = (quote.prove(None).unwrap(), quote.format());
        Self { platform, evidence, empty, full, cuts, proofs, revoked, proof, format }
    }

    /// What dcap-qvl says: every status but Revoked is good, and the PCE is the one the TCB info is for.
    pub(crate) fn reference(&self, evidence: &Evidence, now: u32) -> Result<Accepted, String> {
        let root = self.platform.root_der();
        let collateral = evidence.collateral(root);
        let verified = QuoteVerifier::new(root.to_vec())
            .verify(&evidence.raw_quote(root), &collateral, u64::from(now))
            .map_err(|error| format!("{error:#}"))?;
        let info: serde_json::Value =
            serde_json::from_str(&collateral.tcb_info).map_err(|e| e.to_string())?;
        let pce = hex::decode(info["pceId"].as_str().unwrap_or_default()).unwrap_or_default();
        let pck = Certificate::from_der(&evidence.der(Part::Pck));
        if let Ok(pck) = &pck
            && let prover::certificate::Kind::Pck(claims) = &pck.kind
            && claims.pce_id.to_be_bytes()[..] != pce[..]
        {
            return Err("another PCE".into());
        }
        let report = verified.report.as_td10().ok_or("no TD report")?;
        Ok(Accepted {
            report_data: report.report_data,
            ppid: verified.ppid,
            up_to_date: verified.status == "UpToDate",
        })
    }

    /// What the Attestor says of evidence in which `changed` may differ from the sound: first as the prover brings it,
    /// and where the prover refuses, as somebody would who forces it on the contract.
    pub(crate) fn contract(
        &self,
        bench: &Bench,
        evidence: &Evidence,
        changed: Part,
        now: u32,
    ) -> Result<Shown, String> {
        match self.honest(evidence, changed) {
            Ok((start, messages)) => {
                let accepted = judge(bench, &start, messages, now)?;
                Ok(Shown { accepted, evidence: evidence.clone() })
            }
            Err(refusal) => {
                let (start, messages, evidence) = self.forced(evidence, changed);
                let accepted =
                    judge(bench, &start, messages, now).map_err(|_| format!("prover: {refusal}"))?;
                Ok(Shown { accepted, evidence })
            }
        }
    }

    /// The Attestor without what `changed` replaces.
    pub(crate) fn without(&self, changed: Part) -> AttestorStorage {
        let mut held = self.full.clone();
        let mut collateral = (*held.collateral).clone();
        let authority = |signer| HashBytes(Sha256::digest(self.platform.public_key(signer)).into());
        match changed {
            Part::Report | Part::QeReport | Part::Pck => {}
            Part::Issuer => {
                held.authorities.remove(authority(Signer::PckIssuer)).unwrap();
            }
            Part::TcbSigner => {
                held.authorities.remove(authority(Signer::TcbSigner)).unwrap();
                collateral.qe_identity = None;
                collateral.tcb_infos = Dict::new();
            }
            Part::RootCrl => held.root_crl = None,
            Part::PckCrl => {
                let id = authority(Signer::PckIssuer);
                let mut issuer = held.authorities.get(id).unwrap().unwrap().into_value();
                issuer.crl = None;
                held.authorities.set(id, Ref::new(issuer).unwrap()).unwrap();
            }
            Part::TcbInfo => collateral.tcb_infos = Dict::new(),
            Part::QeIdentity => collateral.qe_identity = None,
        }
        held.collateral = Ref::new(collateral).unwrap();
        held
    }

    fn honest(&self, evidence: &Evidence, changed: Part) -> Result<(Cell, Vec<Cell>), String> {
        let start = self.without(changed);
        let root = self.platform.root_der();
        let is_text = |part: &Part| !STATEMENTS.contains(part);
        if PARTS.iter().filter(|part| is_text(part)).any(|part| evidence.text(*part).cuts.is_some()) {
            return Err("other cuts".into());
        }
        let proof = prover::quote::prove(&evidence.raw_quote(root), None).map_err(|e| e.to_string())?;
        let mut messages = Vec::new();
        if !matches!(changed, Part::Report | Part::QeReport | Part::Pck) {
            for posting in postings(&evidence.collateral(root), &start, 1).map_err(|e| e.to_string())? {
                messages.push(posting.to_cell().unwrap());
            }
        }
        messages.push(question(proof).to_cell().unwrap());
        Ok((cell_of(&start), messages))
    }

    pub(crate) fn forced(&self, evidence: &Evidence, changed: Part) -> (Cell, Vec<Cell>, Evidence) {
        let issuer_key = key_in(&evidence.text(Part::Issuer).bytes)
            .unwrap_or_else(|| self.platform.public_key(Signer::PckIssuer));
        let signer_key = key_in(&evidence.text(Part::TcbSigner).bytes)
            .unwrap_or_else(|| self.platform.public_key(Signer::TcbSigner));
        let pck_key =
            key_in(&evidence.text(Part::Pck).bytes).unwrap_or_else(|| self.platform.public_key(Signer::Pck));
        let root_key = self.platform.public_key(Signer::Root);
        let id = |key: &[u8; 64]| HashBytes(Sha256::digest(key).into());
        let (issuer, signer) = (id(&issuer_key), id(&signer_key));
        let query_id = 1;

        let authority = |part| {
            let (certificate, signature) = self.signed(evidence, part, &root_key);
            PostAuthority { query_id, certificate, signature }.to_cell().unwrap()
        };
        let list = |part: Part, issuer, key: &[u8; 64]| {
            let (list, signature) = self.signed(evidence, part, key);
            let revoked = match RevocationList::from_der(&evidence.der(part)) {
                Ok(list) => list.revoked_set().unwrap(),
                Err(_) => self.revoked[usize::from(part == Part::PckCrl)].clone(),
            };
            PostCrl { query_id, issuer, list, signature, revoked }.to_cell().unwrap()
        };
        let info = || {
            let (document, signature) = self.signed(evidence, Part::TcbInfo, &signer_key);
            PostTcbInfo { query_id, signer, document, signature }.to_cell().unwrap()
        };
        let identity = || {
            let (document, signature) = self.signed(evidence, Part::QeIdentity, &signer_key);
            PostQeIdentity { query_id, signer, document, signature }.to_cell().unwrap()
        };
        let mut messages = match changed {
            Part::Report | Part::QeReport | Part::Pck => Vec::new(),
            Part::Issuer => vec![authority(changed), list(Part::PckCrl, issuer, &issuer_key)],
            Part::TcbSigner => vec![authority(changed), info(), identity()],
            Part::RootCrl => vec![list(changed, HashBytes::ZERO, &root_key)],
            Part::PckCrl => vec![list(changed, issuer, &issuer_key)],
            Part::TcbInfo => vec![info()],
            Part::QeIdentity => vec![identity()],
        };

        // Of each of the three, what varies is taken from where the sound text has it.
        let signature = |part, key: &[u8; 64]| (*self.signed(evidence, part, key).1).clone();
        let text = |part| &evidence.text(part).bytes;
        let (x, y) = evidence.attestation_key.split_at(32);
        let mut authentication_data = [0; 32];
        let length = evidence.authentication_data.len().min(32);
        authentication_data[..length].copy_from_slice(&evidence.authentication_data[..length]);
        let report_signature = signature(Part::Report, &evidence.attestation_key);
        let td = td_fields(self.format, text(Part::Report), report_signature);
        let qe = qe_statement(text(Part::QeReport), signature(Part::QeReport, &pck_key)).unwrap();
        let pck = self.forced_pck(text(Part::Pck), issuer, signature(Part::Pck, &issuer_key));
        let proof = QuoteProof {
            key_x: HashBytes::from_slice(x),
            key_y: HashBytes::from_slice(y),
            authentication_data: HashBytes(authentication_data),
            td: td.map_or_else(|_| self.proof.td.clone(), |td| Ref::new(td).unwrap()),
            qe: Ref::new(qe).unwrap(),
            pck: Ref::new(pck).unwrap(),
        };
        let issuer = Certificate::from_der(&evidence.der(Part::Issuer))
            .or_else(|_| Certificate::from_der(&self.evidence.der(Part::Issuer)))
            .unwrap();
        let mut shown = evidence.clone();
        shown.text_mut(Part::Report).bytes = td_text(&proof.td);
        shown.text_mut(Part::QeReport).bytes = qe_text(&proof);
        shown.text_mut(Part::Pck).bytes = pck_text(&proof.pck, &issuer);
        messages.push(question(proof).to_cell().unwrap());
        (cell_of(&self.without(changed)), messages, shown)
    }

    /// A statement with every field that a changed certificate still has, at its place or moved with what follows it.
    fn forced_pck(&self, text: &[u8], issuer: HashBytes, signature: P256Signature) -> PckStatement {
        let sound = &self.evidence.text(Part::Pck).bytes;
        let statement = &*self.proof.pck;
        let platform = &*statement.platform;
        let x = array(text, sound, &statement.x.0);
        PckStatement {
            x: HashBytes(x),
            y: HashBytes(array(text, sound, &statement.y.0)),
            validity: Bytes(array(text, sound, &statement.validity.0)),
            serial: Bytes(array(text, sound, &statement.serial.0)),
            points: statement.points.clone(),
            platform: Ref::new(PckPlatform {
                issuer,
                key_id: Bytes(array(text, sound, &platform.key_id.0)),
                ppid: Bytes(array(text, sound, &platform.ppid.0)),
                svns: Bytes(array(text, sound, &platform.svns.0)),
                fmspc: Bytes(array(text, sound, &platform.fmspc.0)),
                ..platform.clone()
            })
            .unwrap(),
            signature: Ref::new(signature).unwrap(),
        }
    }

    /// Pieces and signature, whether or not it is one.
    fn signed(&self, evidence: &Evidence, part: Part, key: &[u8; 64]) -> (Ref<Pieces>, Ref<P256Signature>) {
        let (text, sound) = (evidence.text(part), self.evidence.text(part));
        let proof = &self.proofs[part as usize];
        if text == sound && *key == self.platform.public_key(part.signer()) {
            return proof.clone();
        }
        let cuts = match &text.cuts {
            Some(cuts) => cuts.clone(),
            None => moved_cuts(&sound.bytes, &text.bytes, &self.cuts[part as usize]),
        };
        let digest = Sha256::digest(&text.bytes).into();
        let signature = proven(&digest, &text.signature, key).unwrap_or_else(|_| {
            let (r, s) = text.signature.split_at(32);
            P256Signature {
                r: HashBytes::from_slice(r),
                s: HashBytes::from_slice(s),
                witness: proof.1.witness.clone(),
            }
        });
        (Ref::new(cut(&text.bytes, &cuts)).unwrap(), Ref::new(signature).unwrap())
    }

    /// Of the sound quote.
    pub(crate) fn proof(&self) -> &QuoteProof {
        &self.proof
    }

    /// Makes the TD one that may be debugged, and signs it so.
    pub(crate) fn sign_debug(&mut self) {
        let text = self.evidence.text_mut(Part::Report);
        text.bytes[48 + 120] |= 1;
        text.signature = self.platform.sign_as(Signer::AttestationKey, &text.bytes);
    }

    /// About the evidence as it is.
    pub(crate) fn honest_question(&self) -> Cell {
        let raw = self.evidence.raw_quote(self.platform.root_der());
        question(prover::quote::prove(&raw, None).unwrap()).to_cell().unwrap()
    }

    /// Where the sound text is cut, from the first byte on, without its ends.
    pub(crate) fn sound_cuts(&self, part: Part) -> &[usize] {
        &self.cuts[part as usize]
    }
}

pub(crate) fn names() -> Names {
    let tdx_simulator::Names { platform_ca, processor_ca, tcb_signer, pck, .. } =
        tdx_simulator::Names::simulated();
    Names { platform_ca, processor_ca, tcb_signer, pck }
}

pub(crate) fn question(proof: QuoteProof) -> VerifyQuote {
    VerifyQuote {
        query_id: 7,
        answer_to: StdAddr::new(0, HashBytes([1; 32])),
        quote: Ref::new(proof).unwrap(),
        payload: Cell::default(),
    }
}

fn judge(bench: &Bench, start: &Cell, messages: Vec<Cell>, now: u32) -> Result<Accepted, String> {
    let mut data = start.clone();
    let mut last: Option<Outcome> = None;
    for message in messages {
        let outcome = bench.send(&data, message, now);
        if !outcome.succeeded {
            return Err(format!("exit {}", outcome.exit_code.unwrap_or(-1)));
        }
        data = outcome.data.clone();
        last = Some(outcome);
    }
    let report = last.and_then(|outcome| outcome.report()).ok_or("no answer")?.report;
    let Bytes(report_data) = report.report_data;
    Ok(Accepted { report_data, ppid: report.origin.ppid.0.to_vec(), up_to_date: report.needs == 0 })
}

fn cuts_of(pieces: &Pieces) -> Vec<usize> {
    let mut at = 0;
    let mut cuts: Vec<usize> = pieces
        .as_slice()
        .iter()
        .map(|piece| {
            at += piece.len();
            at
        })
        .collect();
    cuts.pop();
    cuts
}

/// The bytes that the sound text has as `field`, in a changed text: where they were from its start, or else from its end.
fn array<const N: usize>(changed: &[u8], sound: &[u8], field: &[u8; N]) -> [u8; N] {
    let Some(at) = sound.windows(N).position(|window| window == field) else { return *field };
    let [from_end] = moved_cuts(sound, changed, &[at])[..] else { return *field };
    changed.get(from_end..).and_then(|rest| rest.first_chunk()).copied().unwrap_or(*field)
}

/// The same cuts in a changed text: those before the change stand, those after it move with what follows.
fn moved_cuts(sound: &[u8], changed: &[u8], cuts: &[usize]) -> Vec<usize> {
    let prefix = sound.iter().zip(changed).take_while(|(a, b)| a == b).count();
    let longest = sound.len().min(changed.len()) - prefix;
    let suffix =
        sound.iter().rev().zip(changed.iter().rev()).take(longest).take_while(|(a, b)| a == b).count();
    cuts.iter()
        .filter_map(|&at| {
            if at <= prefix || sound.len() == changed.len() {
                Some(at)
            } else if at >= sound.len() - suffix {
                (at + changed.len()).checked_sub(sound.len())
            } else {
                None
            }
        })
        .collect()
}

fn cut(bytes: &[u8], cuts: &[usize]) -> Pieces {
    let mut pieces = Vec::new();
    let mut from = 0;
    for &at in cuts.iter().chain([&bytes.len()]) {
        let at = at.min(bytes.len());
        if at > from {
            pieces.extend(bytes[from..at].chunks(127).map(<[u8]>::to_vec));
            from = at;
        }
    }
    pieces.truncate(250);
    Pieces::new(pieces).unwrap_or_else(|_| Pieces::new(vec![vec![0]]).unwrap())
}

/// The public key in a certificate, wherever it is.
fn key_in(bytes: &[u8]) -> Option<[u8; 64]> {
    const MARK: [u8; 8] = [0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04];
    let at = bytes.windows(8).position(|window| window == MARK)?;
    bytes.get(at + 8..at + 72)?.try_into().ok()
}
