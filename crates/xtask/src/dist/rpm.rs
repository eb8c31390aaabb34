//! The package for Fedora and its kin. *Source:* Fedora Packaging Guidelines; rpm-spec(5).

use super::{
    Release,
    tree::{self, Folders},
};
use ::rpm::{BuildConfig, CompressionType, Dependency, FileOptions, PackageBuilder, Scriptlet};
use anyhow::Result;

/// Returns the package's bytes.
pub(crate) fn package(release: &Release) -> Result<Vec<u8>> {
    let files = tree::system(release, Folders { zsh: "usr/share/zsh/site-functions" })?;
    let script = |name: &str| -> Result<Scriptlet> {
        let text = String::from_utf8(tree::read(&release.root, &format!("deploy/rpm/{name}"))?)?;
        Ok(Scriptlet::new(text).prog(vec!["/bin/sh"]))
    };
    let summary = "Containers on one host or many";
    let mut package =
        PackageBuilder::new("rswarm", &release.version, "Apache-2.0", release.target.machine(), summary);
    package
        // Gzip, which every rpm reads. Nobody signs it in place, so no room is kept.
        .using_config(
            BuildConfig::v4()
                .compression(CompressionType::Gzip)
                .source_date(release.epoch)
                .reserved_space(None),
        )
        .release("1")
        .url(env!("CARGO_PKG_REPOSITORY"))
        .vendor("rswarm")
        // Whose machine made it is nobody's business.
        .build_host("localhost")
        .description(
            "Engine, cluster and client in one static program, in place of Docker, Compose and Swarm: images, networks, \
             volumes, Raft managers, a scheduler, overlay networks. It takes compose files and Docker's CLI as they are.",
        )
        .requires(Dependency::script_post("/usr/sbin/groupadd"))
        .recommends(Dependency::any("ca-certificates"))
        .pre_install_script(script("pre")?)
        .post_install_script(script("post")?)
        .pre_uninstall_script(script("preun")?)
        .post_uninstall_script(script("postun")?);
    for (path, file) in files {
        let permissions = u16::try_from(file.mode)?;
        let mut options =
            FileOptions::new(format!("/{path}")).permissions(permissions).user("root").group("root");
        if file.settings {
            options = options.config().noreplace();
        }
        package.with_file_contents(file.content, options)?;
    }
    for path in ["/etc/rswarm", "/usr/share/doc/rswarm"] {
        package.with_dir_entry(FileOptions::dir(path).permissions(0o755).user("root").group("root"))?;
    }
    let mut bytes = Vec::new();
    package.build()?.write(&mut bytes)?;
    Ok(bytes)
}
