//! `rswarm oci`: the verbs that engines call an OCI runtime with. Source: OCI runtime spec, "runtime.md"; runc(8).

use crate::cli::{LogFormat, OciArgs, OciVerb};
use crate::output;
use anyhow::{Context, Result, anyhow};
use runtime::{ShimProgram, oci};
use std::{fs::OpenOptions, io::Write, path::Path, process::ExitCode};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// # Errors
/// What the verb failed with; `--log` has it too.
pub(crate) fn run(args: &OciArgs) -> Result<ExitCode> {
    let result = carry_out(&args.root, &args.verb);
    if let (Err(error), Some(file)) = (&result, &args.log) {
        log(file, args.log_format, error)?;
    }
    result.map(|()| ExitCode::SUCCESS)
}

fn carry_out(root: &Path, verb: &OciVerb) -> Result<()> {
    match verb {
        OciVerb::Create { id, bundle, console_socket, pid_file } => {
            let shim =
                ShimProgram::of_this_program(vec!["shim".into()]).context("cannot prepare the shim")?;
            let create = oci::Create {
                id: id.clone(),
                bundle: bundle.clone(),
                console_socket: console_socket.clone(),
                pid_file: pid_file.clone(),
                userns_squash: runtime::single_uid(),
            };
            Ok(oci::create(root, &shim, &create)?)
        }
        OciVerb::Start { id } => Ok(oci::start(root, id)?),
        OciVerb::State { id } => {
            let mut state = serde_json::to_string_pretty(&oci::state(root, id)?)?;
            state.push('\n');
            output::bytes(state.as_bytes())
        }
        OciVerb::Kill { id, signal, all } => {
            let number =
                runtime::parse_signal(signal).with_context(|| format!("no signal is called {signal:?}"))?;
            Ok(oci::kill(root, id, number, *all)?)
        }
        OciVerb::Delete { ids, force } => {
            let mut errors = Vec::new();
            for id in ids {
                match oci::delete(root, id, *force) {
                    Ok(None) => {}
                    Ok(Some(reason)) => output::warning(&reason),
                    Err(failed) => {
                        errors.extend(failed.into_iter().map(|e| format!("{:#}", anyhow::Error::from(e))));
                    }
                }
            }
            if errors.is_empty() { Ok(()) } else { Err(anyhow!("{}", errors.join("\n"))) }
        }
    }
}

/// Adds one line. Source: containerd `go-runc`, which reads `level` and `msg`.
fn log(file: &Path, format: LogFormat, error: &anyhow::Error) -> Result<()> {
    let text = format!("{error:#}");
    let now = OffsetDateTime::now_utc().format(&Rfc3339)?;
    let line = match format {
        LogFormat::Json => serde_json::json!({"level": "error", "msg": text, "time": now}).to_string(),
        LogFormat::Text => format!("time=\"{now}\" level=error msg={text:?}"),
    };
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .and_then(|mut log| writeln!(log, "{line}"))
        .with_context(|| format!("cannot write the log {}", file.display()))
}
