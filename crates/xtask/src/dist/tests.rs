//! Packing, and what install.sh and the units do on a host.

mod hosts;
mod installs;
mod links;
mod packages;

use super::{Release, Target, supplied};
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Says what the program says of itself, so that packing takes no release build. `words` are said besides the version.
fn stand_in(folder: &Path, words: &str) -> PathBuf {
    let path = folder.join("rswarm");
    let text = format!(
        "#!/bin/sh\n\
         if [ \"$1\" = -H ]; then host=$2; shift 2; fi\n\
         case $1 in\n\
         --version) echo 'rswarm {}, {words}' ;;\n\
         man) echo '.TH rswarm 1' >\"$2/rswarm.1\"; echo '.TH rswarm-ps 1' >\"$2/rswarm-ps.1\" ;;\n\
         completion) echo \"# completes in $2\" ;;\n\
         system) echo \"$host: $*\" >>/tmp/told ;;\n\
         *) exit 1 ;;\n\
         esac\n",
        env!("CARGO_PKG_VERSION")
    );
    testkit::write_program(&path, &text, 0o700);
    path
}

/// What the program is made of: asked for once, as cargo takes its time.
fn made_of() -> Vec<supplied::Supplied> {
    static ONCE: std::sync::OnceLock<Vec<supplied::Supplied>> = std::sync::OnceLock::new();
    ONCE.get_or_init(|| supplied::of_program(&repository(), Target::here()).unwrap()).clone()
}

fn release(words: &str) -> Release {
    let folder = tempfile::tempdir().unwrap();
    let program = stand_in(folder.path(), words);
    Release::of(&repository(), Target::here(), 1_700_000_000, &program, made_of(), 1).unwrap()
}

/// A folder with a release: of `DIST` if that is set, so that the real one is tried; else with a stand-in.
fn packed() -> Packed {
    match std::env::var_os("DIST") {
        Some(folder) => Packed { folder: folder.into(), _ends_with_it: None },
        None => Packed::of("as it was"),
    }
}

struct Packed {
    folder: PathBuf,
    _ends_with_it: Option<tempfile::TempDir>,
}

impl Packed {
    fn of(words: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        release(words).write(folder.path()).unwrap();
        Self { folder: folder.path().to_owned(), _ends_with_it: Some(folder) }
    }
}
