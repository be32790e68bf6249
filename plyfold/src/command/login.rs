//! `login` and `logout`: credentials of registries, stored where docker and podman store them.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::backends::registry::{Config, Keeper, Login as Stored, Secret, login, logout};
use crate::blocking::{Stop, blocking};
use crate::{Error, Options, Result, printable};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::{Value, json};

use super::args::Login;
use super::global::Global;
use super::layer::Input;
use super::program;
use super::terminal::{Loudness, Terminal, tell};

/// Bytes of a user name or a password.
const LONGEST: u64 = 64 << 10;

/// Tries a user name and a password on a registry, and stores them when they are good.
pub(crate) async fn store(options: Login, global: &Global, terminal: Terminal) -> Result<()> {
    let Login { registry, username, password_stdin, authfile } = options;
    let config = config(&registry, global, authfile)?;
    let (user, password) = (username.map(Secret::new).or(config.username.clone()), config.password.clone());
    let (user, password) = blocking(move |stop| ask(user, password, password_stdin, stop)).await?;
    let Stored { keeper, checked, shadowed_by, .. } = login(&registry, &user, &password, &config).await?;
    if terminal.loudness >= Loudness::Normal {
        if !checked {
            terminal.say("warning", &format!("{registry} allows access without credentials"));
        }
        if let Some(file) = shadowed_by.as_ref().map(|file| file.display()) {
            let logout = format!("{} logout {registry} --authfile {file}", program::name());
            let message = format!("{file} has another login of {registry} and is read first: {logout}");
            terminal.say("warning", &message);
        }
        if matches!(keeper, Keeper::File(_)) {
            let helper = "credsStore in it names a helper that keeps it safe";
            terminal.say("note", &format!("the file holds the password in plain text; {helper}"));
        }
    }
    let (keeper, shown) = place(&keeper);
    let document =
        json!({ "registry": registry, "keeper": keeper, "checked": checked, "shadowed_by": shadowed_by });
    terminal.show(&document, || format!("{}  stored in {}\n", printable(&registry), shown))
}

/// Forgets what is stored for a registry.
pub(crate) async fn forget(
    registry: String,
    authfile: Option<PathBuf>,
    global: &Global,
    terminal: Terminal,
) -> Result<()> {
    let keepers = logout(&registry, &config(&registry, global, authfile)?).await?;
    let list: Vec<Value> = keepers.iter().map(|keeper| place(keeper).0).collect();
    terminal.show(&json!({ "registry": registry, "keepers": list }), || {
        let lines = keepers
            .iter()
            .map(|keeper| format!("{}  removed from {}\n", printable(&registry), place(keeper).1));
        lines.collect()
    })
}

fn config(registry: &str, global: &Global, authfile: Option<PathBuf>) -> Result<Config> {
    if registry.contains('/') {
        return Err(Error::config(format!("not a registry host: {}", printable(registry)))
            .with_hint("write HOST[:PORT], without a scheme before it or a path behind"));
    }
    let config: Config = Options::parse(global.option.iter().map(String::as_str))?.config()?;
    Ok(Config { auth_file: authfile.or(config.auth_file), ..config })
}

/// Where a login is, as JSON and in words.
fn place(keeper: &Keeper) -> (Value, String) {
    match keeper {
        Keeper::File(path) => {
            let path = path.display().to_string();
            (json!({ "file": path }), path)
        }
        Keeper::Helper(name) => (json!({ "helper": name }), format!("docker-credential-{name}")),
        _ => (Value::Null, String::new()),
    }
}

/// What is not given yet: from standard input, or by asking on the terminal.
fn ask(
    user: Option<Secret>,
    password: Option<Secret>,
    password_stdin: bool,
    stop: &Stop,
) -> Result<(Secret, Secret)> {
    let is_terminal = io::stdin().is_terminal();
    let missing = |what: &str, hint: &str| Error::config(format!("no {what} is given")).with_hint(hint);
    let mut input = Input::open(Path::new("-"), stop)?;
    let user = match user {
        Some(user) => user,
        None if is_terminal && !password_stdin => Secret::new(line(&mut input, "user name: ")?),
        None => return Err(missing("user name", "-u USER gives one")),
    };
    let password = if password_stdin {
        let mut text = String::new();
        let unreadable = |e| Error::io("reading the password from standard input", e);
        input.take(LONGEST).read_to_string(&mut text).map_err(unreadable)?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Secret::new(text.strip_suffix('\r').unwrap_or(text))
    } else if let Some(password) = password {
        password
    } else if is_terminal {
        let _silent = Silent::new();
        let password = line(&mut input, "password: ")?;
        // The user's own line feed was not shown.
        tell("\n");
        Secret::new(password)
    } else {
        return Err(missing("password", "--password-stdin reads it from standard input"));
    };
    match (user.reveal(), password.reveal()) {
        ("", _) => Err(missing("user name", "-u USER gives one")),
        (_, "") => Err(missing("password", "an empty one cannot be stored")),
        _ => Ok((user, password)),
    }
}

/// One line from the terminal, without its end.
fn line(input: &mut Input, question: &str) -> Result<String> {
    // Write past the progress bars: a prompt has no line feed.
    let _ = io::stderr().write_all(question.as_bytes());
    let mut text = Vec::new();
    let mut byte = [0];
    while text.len() < LONGEST as usize
        && input.read(&mut byte).map_err(|e| Error::io("reading from the terminal", e))? > 0
        && byte != *b"\n"
    {
        text.push(byte[0]);
    }
    let text = String::from_utf8(text).map_err(|_| Error::config("the input is not UTF-8"))?;
    Ok(text.trim_end_matches('\r').to_owned())
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silent(Option<Termios>);

impl Silent {
    fn new() -> Self {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(mut modes) = before.clone() {
            modes.local_modes.remove(LocalModes::ECHO);
            // Where it cannot be silenced the user sees what is typed, as with any other program.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
        }
        Self(before)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that is gone needs no modes.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}
