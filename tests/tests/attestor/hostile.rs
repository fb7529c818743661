//! Messages that want the Attestor's money, its storage, or its silence.

use contracts::attestor::{
    AttestorStorage, CertificateRevoked, Crl, Pieces, PostCrl, PostTcbInfo, QuoteVerified, ReportRevocation,
    Serial, VerifyQuote,
};
use contracts::errors::ContractError;
use contracts::{Cell, HashBytes, Message, Ref, StdAddr, fees};
use prover::collateral::{Posting, postings};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};
use tdx_simulator::{PckIssuer, Period, Profile, QuoteFormat, Signer, SimulatedPlatform};
use tycho_types::cell::CellBuilder;
use tycho_types::dict::Dict;

use crate::bench::{BALANCE, Bench, Delivery, Outcome, cell_of};
use crate::evidence::{NOW, Part, World, question};
use crate::steps::replaced;

fn world(bench: &Bench, change: impl FnOnce(&mut Profile)) -> World {
    let mut profile = Profile::default();
    profile.revocations.more_by_issuer = vec![[0x11; 20], [0x31; 20], [0x7f; 20]];
    change(&mut profile);
    World::new(bench, [7; 32], profile)
}

/// What brings an empty Attestor to hold all of a platform's collateral.
fn all_postings(platform: &SimulatedPlatform, held: &AttestorStorage) -> Vec<Posting> {
    postings(platform.collateral(), held, 1).unwrap()
}

fn verify_message(world: &World) -> Cell {
    let raw = world.evidence.raw_quote(world.platform.root_der());
    question(prover::quote::prove(&raw, None).unwrap()).to_cell().unwrap()
}

/// Every operation with the storage it succeeds on.
fn operations(bench: &Bench, world: &World) -> Vec<(&'static str, Cell, Cell)> {
    let mut all = Vec::new();
    let mut held = world.empty.clone();
    for posting in all_postings(&world.platform, &held) {
        let body = posting.to_cell().unwrap();
        all.push((posting.what(), cell_of(&held), body.clone()));
        held = bench.send(&cell_of(&held), body, NOW).storage();
    }
    let full = cell_of(&world.full);
    all.push(("verify_quote", full.clone(), verify_message(world)));
    let report = ReportRevocation {
        query_id: 1,
        authority: issuer_id(world),
        serial: contracts::attestor::Bytes([0x11; 20]),
        worker: StdAddr::new(0, HashBytes([3; 32])),
    };
    all.push(("report_revocation", full.clone(), report.to_cell().unwrap()));
    all
}

fn issuer_id(world: &World) -> HashBytes {
    HashBytes(Sha256::digest(world.platform.public_key(Signer::PckIssuer)).into())
}

fn assert_kept(what: &str, outcome: &Outcome, before: &Cell) {
    assert!(outcome.balance >= BALANCE, "{what}: the balance fell by {}", BALANCE - outcome.balance);
    if !outcome.succeeded {
        assert_eq!(outcome.data, *before, "{what}: failed and wrote");
    }
}

#[test]
fn no_value_makes_a_message_cost_the_attestor() {
    let bench = Bench::new();
    let world = world(&bench, |_| ());
    for (what, data, body) in operations(&bench, &world) {
        let full = bench.send(&data, body.clone(), NOW);
        assert!(full.succeeded, "{what}: {:?}", full.exit_code);
        assert_kept(what, &full, &data);
        // From nothing to plenty, through every place where gas or value runs out.
        let enough = 2_000_000_000u128;
        let mut value = 0;
        while value < enough {
            for bounced in [false, true] {
                let outcome = bench.deliver(&data, Delivery { value, bounced, now: NOW, body: body.clone() });
                assert_kept(&format!("{what} with {value}"), &outcome, &data);
            }
            value = value * 5 / 4 + 100_000;
        }
    }
}

#[test]
fn what_is_posted_brings_its_rent_and_gets_the_rest_back() {
    let bench = Bench::new();
    let world = world(&bench, |_| ());
    for (what, data, body) in operations(&bench, &world) {
        let outcome = bench.send(&data, body, NOW);
        let returned: u128 = outcome.sent.iter().map(|(_, value, _)| value).sum();
        assert_eq!(outcome.sent.len(), 1, "{what}");
        assert!(returned > 1_700_000_000, "{what}: {returned} of 2 TON came back");
        if !matches!(what, "verify_quote" | "report_revocation") {
            assert_eq!(outcome.sent[0].0, bench.sender, "{what}");
        }
        let kept = outcome.balance - BALANCE;
        assert_eq!(kept > 0, !matches!(what, "verify_quote" | "report_revocation"), "{what}: {kept}");
    }
}

#[test]
fn a_question_brings_what_an_answer_may_cost_and_a_posting_its_rent_to_the_nanoton() {
    let bench = Bench::new();
    let world = world(&bench, |_| ());
    let prices = tests::Chain::new().prices();
    let too_low = Some(i32::from(ContractError::ValueTooLow.code()));
    let answer = prices.gas(fees::GAS_ATTESTOR_VERIFY).get()
        + prices.forward(fees::REPORT_BITS, fees::REPORT_CELLS).get();
    let rent = prices.storage(fees::RENT_COLLATERAL_S, fees::COLLATERAL_BITS, fees::COLLATERAL_CELLS).get();
    for (what, data, body) in operations(&bench, &world) {
        let with =
            |value| bench.deliver(&data, Delivery { value, bounced: false, now: NOW, body: body.clone() });
        match what {
            "verify_quote" => {
                assert_eq!(with(answer - 1).exit_code, too_low);
                assert!(with(answer).succeeded);
            }
            "report_revocation" => {}
            // What brings too little for its gas ends before its rent is asked for.
            _ if with(rent - 1).exit_code == Some(-14) => {}
            _ => {
                assert_eq!(with(rent - 1).exit_code, too_low, "{what}");
                assert_ne!(with(rent).exit_code, too_low, "{what}");
            }
        }
    }
}

#[test]
fn noise_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    let world = world(&bench, |_| ());
    let data = cell_of(&world.full);
    let mut rng = StdRng::seed_from_u64(5);
    let known = operations(&bench, &world);
    for round in 0..600 {
        let (what, _, body) = &known[rng.random_range(0..known.len())];
        // One cell of a sound message changed, dropped, or in another's place.
        let cells = count(body);
        let mut at = rng.random_range(0..cells);
        let spoiled = spoil(&mut rng, body, &mut at);
        if spoiled == *body {
            continue;
        }
        let outcome = bench.deliver(
            &data,
            Delivery { value: 2_000_000_000, bounced: round % 7 == 0, now: NOW, body: spoiled },
        );
        assert_kept(what, &outcome, &data);
        assert_eq!(outcome.data, data, "{what}: a spoiled message wrote");
    }
    for opcode in (0..=u32::MAX).step_by(7_654_321) {
        let body = CellBuilder::build_from(opcode).unwrap();
        let outcome = bench.send(&data, body, NOW);
        assert!(!outcome.succeeded, "{opcode:08x}");
        assert_kept("unknown", &outcome, &data);
    }
    let plain = bench.send(&data, Cell::default(), NOW);
    assert!(plain.succeeded && plain.sent.is_empty() && plain.balance > BALANCE);
}

fn count(cell: &Cell) -> usize {
    1 + (0..cell.reference_count())
        .filter_map(|at| cell.reference_cloned(at))
        .map(|cell| count(&cell))
        .sum::<usize>()
}

/// The `at`-th cell, depth first, with a bit flipped, bits missing, a reference less or one more.
fn spoil(rng: &mut StdRng, cell: &Cell, at: &mut usize) -> Cell {
    let mut builder = CellBuilder::new();
    let is_it = *at == 0;
    *at = at.wrapping_sub(1);
    let bits = cell.bit_len();
    let choice = if is_it { rng.random_range(0..4) } else { 4 };
    let kept = if choice == 1 { bits.saturating_sub(rng.random_range(1..=8)) } else { bits };
    let flipped = if choice == 0 && bits > 0 { Some(rng.random_range(0..bits)) } else { None };
    let mut slice = cell.as_slice().unwrap();
    for bit in 0..kept {
        let value = slice.load_bit().unwrap() ^ (Some(bit) == flipped);
        builder.store_bit(value).unwrap();
    }
    let references = cell.reference_count() - u8::from(choice == 2 && cell.reference_count() > 0);
    for index in 0..references {
        let child = spoil(rng, &cell.reference_cloned(index).unwrap(), at);
        builder.store_reference(child).unwrap();
    }
    if choice == 3 && builder.size_refs() < 4 {
        builder.store_reference(Cell::default()).unwrap();
    }
    builder.build().unwrap()
}

#[test]
fn the_largest_messages_are_paid_for_by_their_sender() {
    let bench = Bench::new();
    let world = world(&bench, |_| ());
    let data = cell_of(&world.full);
    // 5 461 different cells.
    let cells = tree(6, &mut 0);
    let mut question = VerifyQuote::from_cell(&verify_message(&world)).unwrap();
    question.payload = cells.clone();
    for value in [0, 50_000_000, 200_000_000, 2_000_000_000] {
        let body = question.to_cell().unwrap();
        let outcome = bench.deliver(&data, Delivery { value, bounced: false, now: NOW, body });
        assert_kept("a large payload", &outcome, &data);
    }
    let mut posting = all_postings(&world.platform, &world.empty);
    let Some(Posting::Crl(mut list)) =
        posting.iter().position(|p| p.what() == "PCK CRL").map(|at| posting.remove(at))
    else {
        panic!("a PCK CRL")
    };
    list.issuer = issuer_id(&world);
    list.revoked = Dict::from(Some(cells));
    let start = cell_of(&world.without(Part::PckCrl));
    for value in [0, 50_000_000, 200_000_000, 2_000_000_000] {
        let body = list.to_cell().unwrap();
        let outcome = bench.deliver(&start, Delivery { value, bounced: false, now: NOW, body });
        assert!(!outcome.succeeded);
        assert_kept("a large set", &outcome, &start);
    }
}

/// Of four branches at every level.
fn tree(depth: u8, number: &mut u64) -> Cell {
    let mut builder = CellBuilder::new();
    *number += 1;
    builder.store_u64(*number).unwrap();
    if depth > 0 {
        for _ in 0..4 {
            builder.store_reference(tree(depth - 1, number)).unwrap();
        }
    }
    builder.build().unwrap()
}

#[test]
fn a_set_of_serials_is_the_list_and_nothing_else() {
    let bench = Bench::new();
    let world = world(&bench, |_| ());
    let start = cell_of(&world.without(Part::PckCrl));
    let post = all_postings(&world.platform, &world.empty)
        .into_iter()
        .find_map(|posting| match posting {
            Posting::Crl(list) if list.issuer != HashBytes::ZERO => Some(list),
            _ => None,
        })
        .unwrap();
    let ask = |revoked: Dict<Serial, bool>| {
        let body = PostCrl { revoked, ..post.clone() }.to_cell().unwrap();
        let outcome = bench.send(&start, body, NOW);
        assert_kept("a set", &outcome, &start);
        outcome
    };
    assert!(ask(post.revoked.clone()).succeeded);
    // One more, one less, none, another value.
    let mut more = post.revoked.clone();
    more.set(contracts::attestor::Bytes([0x55; 20]), true).unwrap();
    assert!(!ask(more).succeeded);
    let mut less = post.revoked.clone();
    less.remove(contracts::attestor::Bytes([0x31; 20])).unwrap();
    assert!(!ask(less).succeeded);
    assert!(!ask(Dict::new()).succeeded);
    // A cell with the same two children all the way down: 160 cells, 2^160 serials.
    let mut shared = {
        let mut leaf = CellBuilder::new();
        // An empty label, then the value.
        leaf.store_bit(false).unwrap();
        leaf.store_bit(false).unwrap();
        leaf.store_bit(true).unwrap();
        leaf.build().unwrap()
    };
    for _ in 0..160 {
        let mut node = CellBuilder::new();
        node.store_bit(false).unwrap();
        node.store_bit(false).unwrap();
        node.store_reference(shared.clone()).unwrap();
        node.store_reference(shared).unwrap();
        shared = node.build().unwrap();
    }
    assert!(!ask(Dict::from(Some(shared))).succeeded);
    // The right set with bits or a cell behind a leaf.
    for (bits, references) in [(1, 0), (200, 0), (900, 0), (0, 1), (0, 2)] {
        let root = post.revoked.clone().into_root().unwrap();
        let padded = pad_last_leaf(&root, bits, references);
        let outcome = ask(Dict::from(Some(padded)));
        let serials = post.revoked.iter().count();
        if outcome.succeeded {
            // What is kept beyond labels is bounded by what the issuer listed.
            let held = outcome.storage().authorities.get(issuer_id(&world)).unwrap().unwrap();
            let kept = held.crl.as_ref().unwrap().revoked.clone().into_root().unwrap();
            let stats = kept.compute_unique_stats(100).unwrap();
            assert!(
                stats.bit_count as usize <= 200 * serials && stats.cell_count as usize == 2 * serials - 1
            );
        }
        assert!(
            !outcome.succeeded || (bits < 200 && references == 0),
            "{bits} bits, {references} references"
        );
    }
}

/// The same dictionary with rubbish at the end of its rightmost leaf.
fn pad_last_leaf(cell: &Cell, bits: u16, references: u8) -> Cell {
    let mut builder = CellBuilder::new();
    let mut slice = cell.as_slice().unwrap();
    for _ in 0..cell.bit_len() {
        builder.store_bit(slice.load_bit().unwrap()).unwrap();
    }
    let children = cell.reference_count();
    for at in 0..children {
        let child = cell.reference_cloned(at).unwrap();
        let child = if at + 1 == children { pad_last_leaf(&child, bits, references) } else { child };
        builder.store_reference(child).unwrap();
    }
    if children == 0 {
        for _ in 0..bits.min(1_023 - cell.bit_len()) {
            builder.store_bit(true).unwrap();
        }
        for _ in 0..references {
            builder.store_reference(Cell::default()).unwrap();
        }
    }
    builder.build().unwrap()
}

#[test]
fn nobody_turns_collateral_back() {
    let bench = Bench::new();
    let issued = |days: u64, number: u32| {
        let mut profile = Profile::default();
        profile.tcb_info.evaluation_number = number;
        profile.qe_identity.evaluation_number = number;
        profile.revocations.number = number as u8;
        SimulatedPlatform::with_profile(&[7; 32], u64::from(NOW) + days * 86_400, profile).unwrap()
    };
    let now = NOW + 10 * 86_400;
    let newest = issued(9, 5);
    let empty = prover::trust::attestor_storage(newest.root_der(), &crate::evidence::names()).unwrap();
    let mut held = empty.clone();
    for posting in all_postings(&newest, &empty) {
        let outcome = bench.send(&cell_of(&held), posting.to_cell().unwrap(), now);
        assert!(outcome.succeeded, "{}", posting.what());
        held = outcome.storage();
    }
    let data = cell_of(&held);
    // Older in everything; an older number with a newer date; a newer number with an older date; the same again.
    for platform in [issued(0, 4), issued(10, 4), issued(0, 6), issued(9, 5)] {
        for posting in all_postings(&platform, &empty) {
            let outcome = bench.send(&data, posting.to_cell().unwrap(), now);
            assert_eq!(
                outcome.exit_code,
                Some(i32::from(ContractError::NotNewer.code())),
                "{}",
                posting.what()
            );
            assert_eq!(outcome.data, data);
        }
    }
    // Newer in one and not older in the other goes through, and changes nothing of another FMSPC.
    for posting in all_postings(&issued(10, 5), &held) {
        assert!(bench.send(&data, posting.to_cell().unwrap(), now).succeeded, "{}", posting.what());
    }
    let other = SimulatedPlatform::with_profile(
        &[7; 32],
        u64::from(now),
        Profile { fmspc: *b"SIMTD2", ..Profile::default() },
    )
    .unwrap();
    let info = all_postings(&other, &empty).into_iter().find(|posting| posting.what() == "TCB info").unwrap();
    let outcome = bench.send(&data, info.to_cell().unwrap(), now);
    assert!(outcome.succeeded);
    let after = outcome.storage();
    assert_eq!(after.collateral.tcb_infos.iter().count(), 2);
    let kept = after.collateral.tcb_infos.get(contracts::attestor::Bytes(tdx_simulator::FMSPC)).unwrap();
    assert_eq!(
        kept,
        held.collateral.tcb_infos.get(contracts::attestor::Bytes(tdx_simulator::FMSPC)).unwrap()
    );
}

#[test]
fn an_authority_is_posted_while_it_is_in_force_and_replaced_by_one_that_lasts_longer() {
    let bench = Bench::new();
    let (from, until) = (NOW - 1_000, NOW + 1_000_000);
    let issued = |longer: u32| {
        let period = Period { from_s: Some(from.into()), until_s: Some((until + longer).into()) };
        let mut profile = Profile::default();
        (profile.periods.issuer, profile.periods.tcb_signer) = (period, period);
        SimulatedPlatform::with_profile(&[7; 32], u64::from(NOW), profile).unwrap()
    };
    let (first, second) = (issued(0), issued(1));
    let empty = prover::trust::attestor_storage(first.root_der(), &crate::evidence::names()).unwrap();
    let authorities = |platform: &SimulatedPlatform| -> Vec<Cell> {
        let postings = all_postings(platform, &empty);
        let only = postings.iter().filter(|posting| matches!(posting, Posting::Authority(_)));
        only.map(|posting| posting.to_cell().unwrap()).collect()
    };
    let held = |outcome: &Outcome| outcome.storage().authorities.iter().next().unwrap().unwrap().1;
    let error = |error: ContractError| Some(i32::from(error.code()));
    let (sooner, later) = (authorities(&first), authorities(&second));
    assert_eq!((sooner.len(), later.len()), (2, 2));
    for (one, other) in sooner.into_iter().zip(later) {
        let send = |data: &Cell, body: &Cell, now| bench.send(data, body.clone(), now);
        let start = cell_of(&empty);
        for (now, expected) in [
            (from - 1, error(ContractError::OutOfDate)),
            (from, Some(0)),
            (until, Some(0)),
            (until + 1, error(ContractError::OutOfDate)),
        ] {
            assert_eq!(send(&start, &one, now).exit_code, expected, "{now}");
        }
        let posted = send(&start, &one, NOW);
        assert_eq!((held(&posted).not_before, held(&posted).not_after), (from, until));
        let renewed = send(&posted.data, &other, NOW);
        assert!(renewed.succeeded, "{:?}", renewed.exit_code);
        assert_eq!((held(&renewed).not_before, held(&renewed).not_after), (from, until + 1));
        for body in [&one, &other] {
            assert_eq!(send(&renewed.data, body, NOW).exit_code, error(ContractError::NotNewer));
        }
    }
    // What the authority revoked before stays revoked.
    let sound = World::new(&bench, [7; 32], {
        let period = Period { from_s: None, until_s: Some(until.into()) };
        let mut profile = Profile::default();
        (profile.periods.issuer, profile.periods.tcb_signer) = (period, period);
        profile
    });
    for body in authorities(&second) {
        let renewed = bench.send(&cell_of(&sound.full), body, NOW);
        assert!(renewed.succeeded, "{:?}", renewed.exit_code);
        for (before, after) in sound.full.authorities.iter().zip(renewed.storage().authorities.iter()) {
            assert_eq!(before.unwrap().1.crl, after.unwrap().1.crl);
        }
    }
}

/// What Intel writes of a component may be of any length that fits a piece.
#[test]
fn a_component_may_be_described_at_any_length() {
    let bench = Bench::new();
    let world = world(&bench, |_| ());
    let start = world.without(Part::TcbInfo);
    let sound = world.platform.collateral();
    for length in 0..80 {
        let mut collateral = sound.clone();
        let described = format!("\"type\":\"{}\"", "x".repeat(length));
        collateral.tcb_info = sound.tcb_info.replace("\"type\":\"TXT SINIT\"", &described);
        assert!(collateral.tcb_info.contains(&described));
        let signature = world.platform.sign_as(Signer::TcbSigner, collateral.tcb_info.as_bytes());
        collateral.tcb_info_signature = signature.to_vec();
        for posting in postings(&collateral, &start, 1).unwrap() {
            let outcome = bench.send(&cell_of(&start), posting.to_cell().unwrap(), NOW);
            assert!(outcome.succeeded, "{length} characters: {:?}", outcome.exit_code);
            let (after, before) = (outcome.storage(), &world.full);
            assert_eq!(after.collateral.tcb_infos, before.collateral.tcb_infos);
        }
    }
}

#[test]
fn documents_need_their_signer_certified_in_force_and_not_revoked() {
    let bench = Bench::new();
    let world = world(&bench, |_| ());
    let post = all_postings(&world.platform, &world.empty)
        .into_iter()
        .find_map(|posting| match posting {
            Posting::TcbInfo(post) => Some(post),
            _ => None,
        })
        .unwrap();
    let start = world.without(Part::TcbInfo);
    let code = |held: &AttestorStorage, post: &PostTcbInfo, now| {
        bench.send(&cell_of(held), post.to_cell().unwrap(), now).exit_code
    };
    let error = |error: ContractError| Some(i32::from(error.code()));
    assert_eq!(code(&start, &post, NOW), Some(0));
    assert_eq!(code(&world.empty, &post, NOW), error(ContractError::UnknownAuthority));
    // Its signature under a key that may sign certificates alone.
    let wrong = PostTcbInfo { signer: issuer_id(&world), ..post.clone() };
    assert_eq!(code(&start, &wrong, NOW), error(ContractError::UnknownAuthority));
    let mut held = start.clone();
    held.root_crl = None;
    assert_eq!(code(&held, &post, NOW), error(ContractError::UnknownAuthority));
    assert_eq!(code(&start, &post, NOW + 31 * 86_400), error(ContractError::OutOfDate));
    let mut list: Crl = start.root_crl.clone().unwrap().into_value();
    list.revoked.set(contracts::attestor::Bytes(world.platform.serial(Signer::TcbSigner)), true).unwrap();
    let mut held = start.clone();
    held.root_crl = Some(Ref::new(list).unwrap());
    assert_eq!(code(&held, &post, NOW), error(ContractError::Revoked));
    // The same document by nobody.
    let mut bytes = post.document.as_slice().to_vec();
    bytes[1][0] ^= 1;
    let document = Ref::new(contracts::attestor::Pieces::new(bytes).unwrap()).unwrap();
    let spoiled = PostTcbInfo { document, ..post };
    assert_eq!(code(&start, &spoiled, NOW), error(ContractError::BadSignature));
}

#[test]
fn only_the_root_ends_the_root_and_then_nothing_holds() {
    let bench = Bench::new();
    let sound = world(&bench, |_| ());
    let revoking = world_of_later(|profile| profile.revocations.root = true);
    let list = all_postings(&revoking, &sound.full)
        .into_iter()
        .find_map(|posting| match posting {
            Posting::Crl(list) if list.issuer == HashBytes::ZERO => Some(list),
            _ => None,
        })
        .unwrap();
    let full = cell_of(&sound.full);
    let now = NOW + 86_400;
    // By a certificate authority, or unsigned, it is refused.
    let by_issuer = PostCrl { issuer: issuer_id(&sound), ..list.clone() };
    assert!(!bench.send(&full, by_issuer.to_cell().unwrap(), now).succeeded);
    let signer = HashBytes(Sha256::digest(sound.platform.public_key(Signer::TcbSigner)).into());
    let by_signer = PostCrl { issuer: signer, ..list.clone() };
    let refused = bench.send(&full, by_signer.to_cell().unwrap(), now);
    assert_eq!(refused.exit_code, Some(i32::from(ContractError::UnknownAuthority.code())));
    let mut signature = (*list.signature).clone();
    signature.s.0[31] ^= 1;
    let unsigned = PostCrl { signature: Ref::new(signature).unwrap(), ..list.clone() };
    assert!(!bench.send(&full, unsigned.to_cell().unwrap(), now).succeeded);

    let outcome = bench.send(&full, list.to_cell().unwrap(), now);
    assert!(outcome.succeeded, "{:?}", outcome.exit_code);
    let after = outcome.storage();
    assert!(after.authorities.is_empty() && after.trust.root_x == HashBytes::ZERO);
    let ended = outcome.data;
    let mut messages = vec![verify_message(&sound)];
    for posting in all_postings(&sound.platform, &sound.empty) {
        messages.push(posting.to_cell().unwrap());
    }
    for message in messages {
        let outcome = bench.send(&ended, message, now);
        assert!(!outcome.succeeded);
        assert_kept("after the root's end", &outcome, &ended);
    }
    // The key that is left is no point: nothing is checked under it.
    for posting in all_postings(&sound.platform, &sound.empty) {
        let is_by_the_root = match &posting {
            Posting::Authority(_) => true,
            Posting::Crl(list) => list.issuer == HashBytes::ZERO,
            _ => false,
        };
        if is_by_the_root {
            let outcome = bench.send(&ended, posting.to_cell().unwrap(), now);
            assert_eq!(outcome.exit_code, Some(i32::from(ContractError::Revoked.code())));
        }
    }
}

fn world_of_later(change: impl FnOnce(&mut Profile)) -> SimulatedPlatform {
    let mut profile = Profile::default();
    profile.revocations.number = 9;
    change(&mut profile);
    SimulatedPlatform::with_profile(&[7; 32], u64::from(NOW) + 86_400, profile).unwrap()
}

#[test]
fn a_revocation_is_told_to_the_worker_it_is_reported_for() {
    let bench = Bench::new();
    let world = world(&bench, |_| ());
    let full = cell_of(&world.full);
    let worker = StdAddr::new(0, HashBytes([3; 32]));
    let report = |authority, serial| {
        let serial = contracts::attestor::Bytes(serial);
        let body = ReportRevocation { query_id: 4, authority, serial, worker: worker.clone() };
        bench.send(&full, body.to_cell().unwrap(), NOW)
    };
    let told = report(issuer_id(&world), [0x31; 20]);
    assert!(told.succeeded);
    let (to, _, body) = &told.sent[0];
    assert_eq!(*to, worker);
    let order = CertificateRevoked::from_cell(body).unwrap();
    assert_eq!((order.authority, order.serial.0), (issuer_id(&world), [0x31; 20]));
    assert!(!report(issuer_id(&world), [0x32; 20]).succeeded);
    assert!(!report(HashBytes::ZERO, [0x31; 20]).succeeded);
}

/// A quote is evidence of what it says, as often as it is shown: whoever uses it must bind it, as the Registry does.
#[test]
fn a_replayed_quote_says_the_same_and_names_who_asked() {
    let bench = Bench::new();
    for format in [QuoteFormat::V4, QuoteFormat::V5Td10, QuoteFormat::V5Td15, QuoteFormat::V5Td15Ex] {
        for issuer in [PckIssuer::Platform, PckIssuer::Processor] {
            let world = world(&bench, |profile| (profile.format, profile.issuer) = (format, issuer));
            let full = cell_of(&world.full);
            let answers = [0, 1].map(|_| {
                let outcome = bench.send(&full, verify_message(&world), NOW);
                assert_eq!(outcome.data, full);
                let answer: QuoteVerified = outcome.report().unwrap();
                assert_eq!(answer.requester, bench.sender);
                answer
            });
            assert_eq!(answers[0], answers[1]);
        }
    }
}

/// `GAS_ATTESTOR_VERIFY` covers the longest way through: the widest certificate, a report with two sets of SVNs, and
/// the last level of every list.
#[test]
fn stated_gas_covers_the_worst_quote() {
    let bench = Bench::new();
    let worst = world(&bench, |profile| {
        profile.format = QuoteFormat::V5Td15Ex;
        profile.component_svns = [128; 16];
        profile.pce_svn = 128;
        profile.tee_tcb_svn = [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        profile.tee_tcb_svn2 = [3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let last = profile.tcb_info.levels.pop().unwrap();
        while profile.tcb_info.levels.len() < 9 {
            let mut level = profile.tcb_info.levels[0].clone();
            level.tdx[2] = 200 - profile.tcb_info.levels.len() as u8;
            level.sgx = [200 - profile.tcb_info.levels.len() as u8; 16];
            profile.tcb_info.levels.push(level);
        }
        profile.tcb_info.levels.sort_by_key(|level| std::cmp::Reverse((level.sgx, level.pce_svn, level.tdx)));
        profile.tcb_info.levels.push(last);
    });
    let outcome = bench.send(&cell_of(&worst.full), verify_message(&worst), NOW);
    assert!(outcome.succeeded, "{:?}", outcome.exit_code);
    let stated: u64 = include_str!("../../../contracts/fees.tolk")
        .lines()
        .find_map(|line| line.strip_prefix("const GAS_ATTESTOR_VERIFY = "))
        .unwrap()
        .parse()
        .unwrap();
    println!("worst verify_quote: {} gas", outcome.gas_used);
    assert!(outcome.gas_used <= stated, "{} of {stated}", outcome.gas_used);
}

/// The same tree with one bit changed, counted from the root's first.
fn flipped(cell: &Cell, at: &mut Option<usize>) -> Cell {
    let mut builder = CellBuilder::new();
    let mut slice = cell.as_slice().unwrap();
    let bits = usize::from(cell.bit_len());
    let here = at.filter(|at| *at < bits);
    *at = at.and_then(|at| at.checked_sub(bits));
    for bit in 0..bits {
        builder.store_bit(slice.load_bit().unwrap() ^ (here == Some(bit))).unwrap();
    }
    for child in cell.references().cloned() {
        builder.store_reference(flipped(&child, at)).unwrap();
    }
    builder.build().unwrap()
}

fn bits(cell: &Cell) -> usize {
    usize::from(cell.bit_len()) + cell.references().cloned().map(|child| bits(&child)).sum::<usize>()
}

/// The contract puts texts together from what it is sent: all of it has to be in a text, or in a witness.
#[test]
fn every_bit_of_a_proof_counts() {
    let bench = Bench::new();
    for (format, issuer, first) in
        [(QuoteFormat::V5Td15Ex, PckIssuer::Platform, 0), (QuoteFormat::V4, PckIssuer::Processor, 3)]
    {
        let world = world(&bench, |profile| (profile.format, profile.issuer) = (format, issuer));
        let full = cell_of(&world.full);
        let body = verify_message(&world);
        assert!(bench.send(&full, body.clone(), NOW).succeeded);
        let question = VerifyQuote::from_cell(&body).unwrap();
        let proof = question.quote.cell();
        for at in (first..bits(proof)).step_by(7) {
            let changed = flipped(proof, &mut Some(at));
            let body = replaced(&body, proof.repr_hash(), &changed);
            let outcome = bench.send(&full, body, NOW);
            assert!(!outcome.succeeded, "{format:?}: bit {at} decides nothing");
            assert_kept("a bit", &outcome, &full);
        }
    }
}

/// A certificate may name another place for its CRL than its issuer's others, in the same form.
#[test]
fn distribution_points_may_be_brought_and_are_part_of_the_text() {
    let bench = Bench::new();
    let world = world(&bench, |_| ());
    let full = cell_of(&world.full);
    let usual = prover::trust::Usual::of(&crate::evidence::names().platform_ca).points;
    let ask = |points: Option<Vec<u8>>| {
        let mut proof = world.proof().clone();
        let mut pck = (*proof.pck).clone();
        pck.points = points.map(|bytes| Ref::new(Pieces::new(vec![bytes]).unwrap()).unwrap());
        proof.pck = Ref::new(pck).unwrap();
        bench.send(&full, question(proof).to_cell().unwrap(), NOW)
    };
    let error = |error: ContractError| Some(i32::from(error.code()));
    let left_out = ask(None);
    let brought = ask(Some(usual.clone()));
    assert!(left_out.succeeded && brought.succeeded);
    assert_eq!(left_out.report().unwrap().report, brought.report().unwrap().report);
    for at in 0..usual.len() {
        let mut other = usual.clone();
        other[at] ^= 1;
        let expected = if at < 19 { ContractError::MalformedText } else { ContractError::BadSignature };
        assert_eq!(ask(Some(other)).exit_code, error(expected), "byte {at}");
    }
    for (bytes, expected) in [
        (usual[..usual.len() - 1].to_vec(), error(ContractError::MalformedText)),
        ([&usual[..], &[0]].concat(), error(ContractError::MalformedText)),
        (usual[..18].to_vec(), Some(9)),
    ] {
        assert_eq!(ask(Some(bytes)).exit_code, expected);
    }
}
