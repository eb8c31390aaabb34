//! Commands that a task runs beside its own: when it has started, and before it stops. *Source:* compose
//! `post_start`, `pre_stop`.

use agent::TaskError;
use engine::{Engine, ExecConfig, ExecStart};
use model::Hook;
use std::time::Duration;
use tokio::time::timeout;

/// Runs hooks one after the other; the first that fails ends it.
///
/// # Errors
/// One cannot be started, ends with another code than 0, or all of them take longer than `limit`.
pub(crate) async fn run(
    engine: &Engine,
    container: &str,
    kind: &str,
    hooks: &[Hook],
    limit: Duration,
) -> Result<(), TaskError> {
    let all = async {
        for hook in hooks {
            one(engine, container, hook)
                .await
                .map_err(|why| TaskError::fatal(format!("{kind} hook {:?} {why}", hook.command.join(" "))))?;
        }
        Ok(())
    };
    match timeout(limit, all).await {
        Ok(outcome) => outcome,
        Err(_) => Err(TaskError::fatal(format!("its {kind} hooks did not end within {limit:?}"))),
    }
}

async fn one(engine: &Engine, container: &str, hook: &Hook) -> Result<(), String> {
    let config = ExecConfig {
        cmd: hook.command.clone(),
        env: hook.env.clone(),
        privileged: hook.privileged,
        user: hook.user.clone(),
        working_dir: hook.working_dir.clone(),
        ..ExecConfig::default()
    };
    let failed = |e: engine::Error| format!("cannot run: {e}");
    let exec = engine.exec_create(container, config).await.map_err(failed)?;
    engine.exec_start(&exec, ExecStart { detach: true, console_size: None }).await.map_err(failed)?;
    let ended = engine.exec_wait(&exec).await.map_err(failed)?;
    match ended.exit_code {
        Some(0) => Ok(()),
        Some(code) => Err(format!("failed with exit code {code}")),
        None => Err("has not ended".to_owned()),
    }
}
