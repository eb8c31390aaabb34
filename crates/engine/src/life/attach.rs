//! Who wants a container's streams gets them from its owner.

use crate::{
    error::{Error, Result},
    inner::Inner,
    life::{
        command::Command,
        streams::{self, AttachOptions, Streams},
    },
};

pub(crate) async fn attach(inner: &Inner, container: &str, options: AttachOptions) -> Result<Streams> {
    let view = inner.inspect(container)?;
    let wanted =
        streams::Wanted { stdin: options.streams.stdin && view.config.open_stdin, ..options.streams };
    let (ours, theirs) =
        streams::pair(wanted, view.config.tty).map_err(Error::io("make socket pair for", &view.id))?;
    inner.ask(container, |reply| Command::Attach(theirs, reply)).await?;
    Ok(ours)
}
