//! `seeds FOLDER` writes each target's seeds into a folder of its name, for cargo-fuzz to begin with.

use std::path::PathBuf;
use std::process::ExitCode;

use verifier_fuzz::TARGETS;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: seeds FOLDER");
        return ExitCode::FAILURE;
    };
    for target in TARGETS {
        let place = folder.join(target.name);
        let written = std::fs::create_dir_all(&place).and_then(|()| {
            let mut seeds = (target.seeds)().into_iter().enumerate();
            seeds.try_for_each(|(number, seed)| std::fs::write(place.join(number.to_string()), seed))
        });
        if let Err(error) = written {
            eprintln!("cannot write {}: {error}", place.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
