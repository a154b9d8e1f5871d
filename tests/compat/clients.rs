//! Consul's own clients, as their makers ship them, run as child processes against our agents.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::tools;

/// How long the Go suite may take to build: the first time it downloads what it needs.
const BUILD_LIMIT: Duration = Duration::from_secs(600);
/// How long one run of a suite may take.
const SUITE_LIMIT: Duration = Duration::from_secs(180);

pub(crate) fn sources(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("compat").join(name)
}

/// The Go suite, built once.
pub(crate) struct GoSuite {
    program: PathBuf,
}

impl GoSuite {
    /// Builds it in `directory`; `go.sum` says what its modules must hash to.
    pub(crate) fn build(directory: &Path) -> Result<Self, String> {
        let program = directory.join("go-suite");
        let mut build = Command::new("go");
        build.current_dir(sources("go")).args(["test", "-mod=readonly", "-c", "-o"]).arg(&program).arg(".");
        tools::run(&mut build, BUILD_LIMIT)?;
        Ok(Self { program })
    }

    /// Runs the tests that need only an agent; how many passed.
    pub(crate) fn run(&self, agent: &str) -> Result<usize, String> {
        let mut suite = self.command();
        suite.args(["-test.skip", "^TestSDK|^TestResolver"]).env("CONSUL_HTTP_ADDR", format!("{agent}:8500"));
        passed(&tools::captured(&mut suite, SUITE_LIMIT)?)
    }

    /// Runs the test whose helper starts `consul` from PATH, which is `lictor` by another name.
    pub(crate) fn run_with_own_server(&self, lictor: &Path, directory: &Path) -> Result<usize, String> {
        let programs = directory.join("programs");
        std::fs::create_dir_all(&programs).map_err(|error| error.to_string())?;
        std::os::unix::fs::symlink(lictor, programs.join("consul")).map_err(|error| error.to_string())?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(programs).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(paths).map_err(|error| error.to_string())?;
        let mut suite = self.command();
        suite.args(["-test.run", "^TestSDK"]).env("PATH", path).env("COMPAT_OWN_SERVER", "1");
        passed(&tools::captured(suite.env("XDG_STATE_HOME", directory.join("sdk-state")), SUITE_LIMIT)?)
    }

    /// Asks the DNS door at this address through Go's own resolver; how many tests passed.
    pub(crate) fn ask(&self, address: &str) -> Result<usize, String> {
        let mut suite = self.command();
        suite.args(["-test.run", "^TestResolver"]).env("DNS_ADDRESS", address);
        passed(&tools::captured(&mut suite, SUITE_LIMIT)?)
    }

    fn command(&self) -> Command {
        let mut suite = Command::new(&self.program);
        suite.current_dir(sources("go")).args(["-test.v", "-test.count=1"]);
        for variable in ["CONSUL_HTTP_TOKEN", "CONSUL_HTTP_SSL", "CONSUL_NAMESPACE"] {
            suite.env_remove(variable);
        }
        suite
    }
}

/// How many tests a Go suite says have passed; none is a failure.
fn passed(output: &str) -> Result<usize, String> {
    match output.lines().filter(|line| line.starts_with("--- PASS")).count() {
        0 => Err(format!("no test ran:\n{output}")),
        count => Ok(count),
    }
}

/// The Python suite in an environment of its own.
pub(crate) struct PythonSuite {
    python: PathBuf,
}

impl PythonSuite {
    /// Makes the environment the first time, with the packages that `requirements.txt` names.
    pub(crate) fn prepare(cache: &Path) -> Result<Self, String> {
        let home = cache.join("compat/python");
        let wanted = sources("python/requirements.txt");
        let text = std::fs::read_to_string(&wanted).map_err(|error| format!("{}: {error}", wanted.display()))?;
        let stamp = home.join("installed.txt");
        let python = home.join("bin/python");
        if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == text) {
            return Ok(Self { python });
        }
        tools::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home), BUILD_LIMIT)?;
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--no-deps", "--requirement"]).arg(&wanted);
        tools::run(&mut install, BUILD_LIMIT)?;
        std::fs::write(&stamp, text).map_err(|error| error.to_string())?;
        Ok(Self { python })
    }

    /// Runs the suite; how many tests passed.
    pub(crate) fn run(&self, agent: &str) -> Result<usize, String> {
        let mut suite = Command::new(&self.python);
        suite.current_dir(sources("python")).args(["-B", "suite.py"]).env("CONSUL_HTTP_ADDR", format!("{agent}:8500"));
        ran(&tools::captured(&mut suite, SUITE_LIMIT)?)
    }
}

/// How many tests a Python suite says that it ran; none is a failure.
pub(crate) fn ran(output: &str) -> Result<usize, String> {
    let count = output.lines().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse().ok());
    count.filter(|count| *count > 0).ok_or_else(|| format!("no test ran:\n{output}"))
}

/// The Node suite, with the packages that its lock file names.
pub(crate) struct NodeSuite {
    home: PathBuf,
}

impl NodeSuite {
    /// Fetches the packages the first time; no script of theirs is run.
    pub(crate) fn prepare(cache: &Path) -> Result<Self, String> {
        let home = cache.join("compat/node");
        std::fs::create_dir_all(&home).map_err(|error| error.to_string())?;
        let lock = std::fs::read_to_string(sources("node/package-lock.json")).map_err(|error| error.to_string())?;
        let stamp = home.join("installed.json");
        if !std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == lock) {
            for file in ["package.json", "package-lock.json"] {
                std::fs::copy(sources("node").join(file), home.join(file)).map_err(|error| error.to_string())?;
            }
            let mut install = Command::new("npm");
            install.current_dir(&home).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
            tools::run(&mut install, BUILD_LIMIT)?;
            std::fs::write(&stamp, lock).map_err(|error| error.to_string())?;
        }
        Ok(Self { home })
    }

    /// Runs the client's tests; how many passed.
    pub(crate) fn run(&self, agent: &str) -> Result<usize, String> {
        self.script("suite.js", "CONSUL_HTTP_ADDR", &format!("{agent}:8500"))
    }

    /// Asks the DNS door at this address through Node's own resolver; how many tests passed.
    pub(crate) fn ask(&self, address: &str) -> Result<usize, String> {
        self.script("resolver.js", "DNS_ADDRESS", address)
    }

    fn script(&self, name: &str, variable: &str, value: &str) -> Result<usize, String> {
        let mut suite = Command::new("node");
        suite.current_dir(sources("node")).args(["--test-reporter=tap", name]).env(variable, value);
        suite.env("NODE_PATH", self.home.join("node_modules"));
        let output = tools::captured(&mut suite, SUITE_LIMIT)?;
        let count = output.lines().find_map(|line| line.strip_prefix("# pass ")?.trim().parse().ok());
        count.filter(|count| *count > 0).ok_or_else(|| format!("no test ran:\n{output}"))
    }
}
