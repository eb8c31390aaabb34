//! What a running daemon is told by signals, and how it takes settings over that were read anew.
//!
//! ```text
//!  SIGTERM, SIGINT   stop; containers run on
//!  SIGHUP            the settings are read anew: what can hold at once does, what cannot is named in the log
//!  SIGUSR1, SIGUSR2  nothing: dockerd's is for those who debug it, and must not end this one
//! ```
//!
//! *Source:* dockerd(8), "Configuration reload behavior"; systemd.service(5), `ExecReload=`.

use crate::{
    InForce, Reread,
    repeats::{Seldom, Shape},
    settings::{LogFormat, Reloaded, Settings},
};
use anyhow::{Context as _, Result};
use docker_api::server::Live;
use engine::Engine;
use std::sync::Arc;
use tokio::signal::unix::{self, SignalKind};
use tracing_subscriber::{
    Layer as _, Registry, filter::Targets, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

/// What somebody wants of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Stop,
    Reload,
}

/// The signals that are listened for; what comes before it is asked for waits.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hang_up: unix::Signal,
    user: [unix::Signal; 2],
}

impl Signals {
    /// # Errors
    /// The kernel refuses one.
    pub(crate) fn listen() -> Result<Self> {
        let listen = |kind, name| unix::signal(kind).with_context(|| format!("cannot listen for {name}"));
        Ok(Self {
            terminate: listen(SignalKind::terminate(), "SIGTERM")?,
            interrupt: listen(SignalKind::interrupt(), "SIGINT")?,
            hang_up: listen(SignalKind::hangup(), "SIGHUP")?,
            user: [
                listen(SignalKind::user_defined1(), "SIGUSR1")?,
                listen(SignalKind::user_defined2(), "SIGUSR2")?,
            ],
        })
    }

    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn next(&mut self) -> Signal {
        let [first, second] = &mut self.user;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Signal::Stop,
                _ = self.interrupt.recv() => return Signal::Stop,
                _ = self.hang_up.recv() => return Signal::Reload,
                _ = first.recv() => tracing::info!("SIGUSR1 means nothing here"),
                _ = second.recv() => tracing::info!("SIGUSR2 means nothing here"),
            }
        }
    }
}

/// Changes what the daemon's log has.
pub(crate) type LogLevel = reload::Handle<Targets, Registry>;

fn asked_level() -> Option<String> {
    std::env::var("RSWARM_LOG").ok().filter(|text| !text.is_empty())
}

/// Begins the daemon's log; returns what changes its level.
///
/// # Errors
/// `RSWARM_LOG` is no filter.
pub(crate) fn log(settings: &Settings) -> Result<LogLevel> {
    let (filter, handle) = reload::Layer::new(settings.log_filter(asked_level().as_deref())?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let format = tracing_subscriber::fmt::format();
    let lines = match settings.log_format {
        None | Some(LogFormat::Text) => lines.event_format(Seldom::new(format, Shape::Text)).boxed(),
        Some(LogFormat::Json) => {
            let format = format.json().flatten_event(true);
            lines.json().event_format(Seldom::new(format, Shape::Json)).boxed()
        }
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    Ok(handle)
}

/// Tells what of the settings has no meaning here.
pub(crate) fn tell(settings: &Settings) {
    for told in &settings.told {
        tracing::warn!(line = told.line, key = told.key, why = told.why, "a setting is left out");
    }
}

/// Returns what the front door reads of the settings, as they are each time.
pub(crate) fn live(settings: &InForce) -> Arc<dyn Fn() -> Live + Send + Sync> {
    let settings = Arc::clone(settings);
    Arc::new(move || {
        let settings = settings.load();
        Live { registries: settings.registries(), labels: settings.labels.clone(), debug: settings.debug }
    })
}

/// Takes the settings over as they are in the file now. One that cannot be read changes nothing. Returns what came of it,
/// for people.
pub(crate) fn reload(reread: &Reread, settings: &InForce, level: &LogLevel, engine: &Engine) -> &'static str {
    match taken_over(reread, settings, level, engine) {
        Ok(Reloaded { settings, changed, waiting }) => {
            tell(&settings);
            if !waiting.is_empty() {
                let keys = waiting.join(" ");
                tracing::warn!(
                    keys,
                    "changed settings hold after a restart of the daemon: containers do not notice it"
                );
            }
            tracing::info!(changed = changed.join(" "), "settings are read anew");
            if waiting.is_empty() {
                "settings were read anew"
            } else {
                "settings wait for a restart: see the log"
            }
        }
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "settings cannot be read anew, and stay as they were"
            );
            "settings could not be read anew: see the log"
        }
    }
}

fn taken_over(reread: &Reread, settings: &InForce, level: &LogLevel, engine: &Engine) -> Result<Reloaded> {
    let reloaded = settings.load().reloaded(reread.0()?);
    let now = &reloaded.settings;
    // All that can fail comes before anything has changed.
    let (filter, defaults) = (now.log_filter(asked_level().as_deref())?, now.engine_defaults()?);
    engine.set_defaults(defaults)?;
    let has = filter.to_string();
    if let Err(error) = level.reload(filter) {
        tracing::warn!(%error, "the log's level stays as it was");
    }
    tracing::debug!(filter = has, "what the log has");
    settings.store(Arc::new(now.clone()));
    Ok(reloaded)
}
