//! What a sender shows to a server, and by what it knows the server: the key and the authorities, as they are now.
//!
//! A training outlives its key: keys expire, are revoked, are replaced. So the settings file and the file of authorities are read
//! at every attempt, and while a refusal is waited out they are looked at every second: `runferry login` beside a running training
//! is all it takes.
//!
//! # Which key
//! The one given by environment or code, until the server refuses it; then the one in the settings file. The file's key goes only
//! to the server that the file names.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use runferry_transport::TransportError;
use runferry_transport::tls::Trust;

/// How often the files are looked at while a refusal is waited out.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most bytes of a settings file and of a file of authorities.
const SETTINGS_BYTES: u64 = 1 << 20;
const AUTHORITIES_BYTES: u64 = 16 << 20;
/// Where systems keep the authorities they trust; the first that can be read is taken.
const SYSTEM_AUTHORITIES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How to get in, as the settings say.
#[derive(Clone, Default)]
pub struct Access {
    /// The key given by environment or code.
    pub api_key: Option<String>,
    /// The settings file; it may hold a key.
    pub settings_file: Option<PathBuf>,
    /// PEM file of the authorities to trust; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// Show the key over plain HTTP to other machines too.
    pub sends_plain_key: bool,
}

impl std::fmt::Debug for Access {
    /// Without the key.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Access")
            .field("has_key", &self.api_key.is_some())
            .field("settings_file", &self.settings_file)
            .field("ca_file", &self.ca_file)
            .field("sends_plain_key", &self.sends_plain_key)
            .finish()
    }
}

/// What tells a file that was replaced.
type Version = Option<(SystemTime, u64)>;

/// The access of one sender, as far as it has been tried.
#[derive(Debug)]
pub(crate) struct Credentials<'a> {
    access: &'a Access,
    base_url: &'a str,
    refused: Vec<Option<Hidden>>,
    trust: Option<(Version, Trust)>,
}

/// A key that does not show in debug output.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hidden(pub(crate) String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("key")
    }
}

impl<'a> Credentials<'a> {
    pub(crate) fn new(access: &'a Access, base_url: &'a str) -> Self {
        Self { access, base_url, refused: Vec::new(), trust: None }
    }

    /// The key to show now; `None`: there is none.
    pub(crate) fn key(&self) -> Option<Hidden> {
        let known = self.known();
        known.iter().find(|key| !self.is_refused(key)).or(known.last()).cloned()
    }

    /// The server refuses what it was shown.
    pub(crate) fn refused(&mut self, key: Option<Hidden>) {
        if !self.refused.contains(&key) {
            self.refused.push(key);
        }
    }

    /// The server took what it was shown: what it refused once may be good again.
    pub(crate) fn accepted(&mut self) {
        self.refused.clear();
    }

    /// The authorities, as their file is now.
    pub(crate) fn trust(&mut self) -> Result<Trust, TransportError> {
        let file = self.authorities();
        let version = file.as_deref().and_then(version);
        if let Some((read, trust)) = &self.trust
            && *read == version
        {
            return Ok(trust.clone());
        }
        let untrusted = |reason: String| TransportError::Untrusted { address: self.base_url.to_owned(), reason };
        let Some(file) = file else {
            return Err(untrusted("no file of authorities is known: RUNFERRY_CA_FILE names one".to_owned()));
        };
        let shown = file.display();
        let pem = read(&file, AUTHORITIES_BYTES).map_err(|error| untrusted(format!("cannot read {shown}: {error}")))?;
        let trust = Trust::from_pem(&pem).map_err(|reason| untrusted(format!("{shown}: {reason}")))?;
        self.trust = Some((version, trust.clone()));
        Ok(trust)
    }

    /// Returns when what led to `error` may have been mended on this side: there is another key, the authorities were replaced.
    pub(crate) async fn mended(&self, error: &TransportError) {
        let authorities = || self.authorities().as_deref().and_then(version);
        let before = authorities();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let is_mended = match error {
                TransportError::PauseAuth { .. } => self.known().iter().any(|key| !self.is_refused(key)),
                TransportError::Untrusted { .. } => authorities() != before,
                TransportError::BadAddress { .. }
                | TransportError::NotRunferry { .. }
                | TransportError::Retry { .. }
                | TransportError::Blocked { .. }
                | TransportError::Incompatible { .. } => false,
            };
            if is_mended {
                return;
            }
        }
    }

    fn is_refused(&self, key: &Hidden) -> bool {
        self.refused.iter().flatten().any(|refused| refused == key)
    }

    /// The keys there are, the one to try first first.
    fn known(&self) -> Vec<Hidden> {
        let given = self.access.api_key.clone();
        let kept = self.access.settings_file.as_deref().and_then(|path| kept_key(path, self.base_url));
        given.into_iter().chain(kept).map(Hidden).collect()
    }

    fn authorities(&self) -> Option<PathBuf> {
        let system = || SYSTEM_AUTHORITIES.iter().map(PathBuf::from).find(|path| path.is_file());
        self.access.ca_file.clone().or_else(system)
    }
}

/// The key that a settings file keeps for a server.
fn kept_key(path: &Path, base_url: &str) -> Option<String> {
    let text = String::from_utf8(read(path, SETTINGS_BYTES).ok()?).ok()?;
    let value_of = |wanted: &str| {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let mut values = lines.filter(|(name, _)| name.trim() == wanted).map(|(_, value)| value.trim().to_owned());
        values.next_back().filter(|value| !value.is_empty())
    };
    let is_for_it =
        value_of("base_url").is_none_or(|kept| kept.trim_end_matches('/') == base_url.trim_end_matches('/'));
    value_of("api_key").filter(|_| is_for_it)
}

fn read(path: &Path, most_bytes: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn version(path: &Path) -> Version {
    let state = std::fs::metadata(path).ok()?;
    Some((state.modified().ok()?, state.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://tracker:7070";

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("settings");
        std::fs::write(&path, text).expect("written");
        (folder, path)
    }

    fn shown(credentials: &Credentials<'_>) -> Option<String> {
        credentials.key().map(|key| key.0)
    }

    #[test]
    fn a_key_is_for_the_server_its_file_names() {
        let lines = "# comment\nbase_url = http://tracker:7070/\napi_key = one\n";
        for (text, key) in [
            (lines, Some("one")),
            ("api_key = one\n", Some("one")),
            ("base_url = http://other:7070\napi_key = one\n", None),
            ("base_url = http://tracker:7070\napi_key =\n", None),
            ("nothing", None),
        ] {
            let (_folder, path) = file(text);

            assert_eq!(kept_key(&path, URL).as_deref(), key, "{text}");
        }
        assert_eq!(kept_key(Path::new("/nowhere/settings"), URL), None);
    }

    #[test]
    fn after_a_refusal_the_other_key_is_shown_and_a_new_one_as_soon_as_it_is_there() {
        let (_folder, path) = file("api_key = kept\n");
        let access = Access { api_key: Some("given".into()), settings_file: Some(path.clone()), ..Access::default() };
        let mut credentials = Credentials::new(&access, URL);

        assert_eq!(shown(&credentials).as_deref(), Some("given"));
        credentials.refused(credentials.key());
        assert_eq!(shown(&credentials).as_deref(), Some("kept"));
        credentials.refused(credentials.key());
        assert_eq!(shown(&credentials).as_deref(), Some("kept"), "the file is what the user can change");
        std::fs::write(&path, "api_key = new\n").expect("written");
        assert_eq!(shown(&credentials).as_deref(), Some("new"));
    }

    // fault: 51
    #[tokio::test(start_paused = true)]
    async fn a_key_that_appears_ends_the_wait_and_the_same_keys_do_not() {
        let (_folder, path) = file("api_key = old\n");
        let access = Access { settings_file: Some(path.clone()), ..Access::default() };
        let mut credentials = Credentials::new(&access, URL);
        credentials.refused(credentials.key());

        let refusal = TransportError::PauseAuth { reason: String::new() };
        let untrusted = TransportError::Untrusted { address: String::new(), reason: String::new() };

        let same = tokio::time::timeout(Duration::from_secs(600), credentials.mended(&refusal)).await;
        std::fs::write(&path, "api_key = new\n").expect("written");
        let other = tokio::time::timeout(Duration::from_secs(5), credentials.mended(&refusal)).await;
        let no_help = tokio::time::timeout(Duration::from_secs(600), credentials.mended(&untrusted)).await;

        assert!(same.is_err(), "nothing had changed");
        assert!(other.is_ok(), "a new key was there");
        assert!(no_help.is_err(), "a key does not mend a certificate");
    }

    #[test]
    fn neither_access_nor_credentials_print_a_key() {
        let access = Access { api_key: Some("secret".into()), ..Access::default() };
        let mut credentials = Credentials::new(&access, URL);
        credentials.refused(credentials.key());

        assert!(!format!("{access:?} {credentials:?}").contains("secret"));
    }
}
