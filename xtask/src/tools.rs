//! Running other programs, and the ones that the tests need on the machine.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The checkout that this program was built from.
pub(crate) fn project_root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(manifest.parent().context("xtask lies at the root of the project")?.to_owned())
}

/// Where builds and tools stay between runs.
pub(crate) fn cache_directory() -> Result<PathBuf> {
    let from_environment = std::env::var_os("LICTOR_CACHE").map(PathBuf::from);
    let of_the_user = || std::env::var_os("XDG_CACHE_HOME").map(|base| PathBuf::from(base).join("lictor"));
    let at_home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/lictor"));
    let directory = from_environment.or_else(of_the_user).or_else(at_home).context("set LICTOR_CACHE: no HOME here")?;
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// `cargo` in the checkout, with every build in one target directory in the cache.
pub(crate) fn cargo(context: &crate::Context) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(&context.root)
        .env("CARGO_TARGET_DIR", target_directory(context))
        .env("CARGO_TERM_COLOR", "never");
    // Set by the cargo that runs us; they would make every build of ours differ from the user's own.
    for variable in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION", "RUSTC_WORKSPACE_WRAPPER"] {
        command.env_remove(variable);
    }
    command
}

/// The one target directory.
pub(crate) fn target_directory(context: &crate::Context) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| context.cache.join("target"), PathBuf::from)
}

/// Runs a command to its end, its output shown as it comes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("    $ {}", shown(command));
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot run {}", shown(command)))?;
    if status.success() { Ok(()) } else { bail!("`{}` ended with {status}", shown(command)) }
}

/// Runs a command and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        bail!("`{}` ended with {}: {}", shown(command), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Whether a program is in PATH.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Whether we are root, which installing packages and starting a node need.
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Installs Debian packages of which one of `programs` is missing.
pub(crate) fn debian(programs: &[&str], packages: &[&str]) -> Result<()> {
    if programs.iter().all(|program| has(program)) {
        return Ok(());
    }
    if !is_root() || !has("apt-get") {
        bail!("needs {} (Debian: apt-get install {})", programs.join(", "), packages.join(" "));
    }
    let mut update = Command::new("apt-get");
    run(update.args(["update", "-q"]))?;
    let mut install = Command::new("apt-get");
    run(install
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}
