//! Further processes of containers, as they are asked for and shown.

use model::Timestamp;
use std::collections::BTreeMap;

/// Source: Docker API `ExecConfig`.
#[derive(Debug, Clone, Default)]
pub struct ExecConfig {
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub tty: bool,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub privileged: bool,
    /// `None` = the container's.
    pub user: Option<String>,
    /// `None` = the container's.
    pub working_dir: Option<String>,
    pub detach_keys: String,
}

impl ExecConfig {
    pub(crate) fn bytes(&self) -> usize {
        self.cmd.iter().chain(&self.env).map(|text| text.len() + size_of::<String>()).sum()
    }
}

/// Source: Docker API `ExecStart`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExecStart {
    /// Answers at once, without streams.
    pub detach: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
}

/// An exec instance. Source: Docker API `ExecInspect`.
#[derive(Debug, Clone)]
pub struct Exec {
    /// 64 hex digits.
    pub id: String,
    pub container_id: String,
    pub config: ExecConfig,
    pub running: bool,
    /// `None` until it ended.
    pub exit_code: Option<i32>,
    pub pid: Option<u32>,
    pub finished_at: Option<Timestamp>,
    pub can_remove: bool,
    pub(crate) made_at: Timestamp,
}

/// By id; an instance is forgotten five minutes after it ended, with its container, or for newer ones of it.
pub(crate) type Execs = BTreeMap<String, Exec>;
