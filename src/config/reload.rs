//! Which settings can change while the server runs, and which have changed between two readings.

use super::layers::Resolved;
use super::settings;

/// When a setting that has changed takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// As soon as it is read again.
    Live,
    /// At the next start.
    Restart,
}

/// A setting whose value is another one now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// [`super::Setting::key`].
    pub key: &'static str,
    /// [`Resolved::value`] as it was; of a secret, its mask.
    pub from: String,
    /// The same as it is.
    pub to: String,
    /// [`super::Setting::reload`].
    pub reload: Reload,
}

/// What has changed, in the order of [`settings`]. A value that has come from another place, or is spelled
/// in another way, has not.
pub fn changes(old: &[Resolved], new: &[Resolved]) -> Vec<Change> {
    let mut changes = Vec::new();
    for (setting, (old, new)) in settings().into_iter().zip(old.iter().zip(new)) {
        assert_eq!([old.key, new.key], [setting.key; 2], "both are whole");
        if !old.is_same_value(new) {
            changes.push(Change {
                key: setting.key,
                from: old.value.clone(),
                to: new.value.clone(),
                reload: setting.reload,
            });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::super::tests::effective;
    use super::*;

    #[test]
    fn what_has_changed() {
        /// One line a change from a file to another.
        #[track_caller]
        fn check(old: &str, new: &str, expected: &[&str]) {
            let env = [("PORT", "1")];
            let resolved = |file| effective(&[], &env, file).unwrap().resolved;
            let changes = changes(&resolved(old), &resolved(new));
            let lines: Vec<String> = changes
                .iter()
                .map(|change| {
                    let Change {
                        key,
                        from,
                        to,
                        reload,
                    } = change;
                    format!("{key} {from} -> {to} {reload:?}")
                })
                .collect();
            assert_eq!(lines, expected);
        }
        check("", "", &[]);
        check("", "debug = true", &["debug false -> true Live"]);
        check("debug = true", "", &["debug true -> false Live"]);
        check(
            "flush_secs = 60\nidle_secs = 5",
            "workers = 2\nidle_secs = 6",
            &["workers all -> 2 Restart", "idle_secs 5s -> 6s Live"],
        );
        // What is hidden, moved, or spelled anew.
        check("port = 2", "port = 3", &[]);
        check("flush_secs = 60", "\nflush_secs = '1m'", &[]);
        check("flush_bytes = '10MiB'", "flush_bytes = 10_485_760", &[]);
        check("host = ['::']", "host = '0::0'", &[]);
        // A secret is another one, though neither is shown.
        let [one, other] = ["0123456789abcdef", "fedcba9876543210"]
            .map(|token| format!("admin_token = '{token}'"));
        check(&one, &one, &[]);
        check(&one, &other, &["admin_token *** -> *** Live"]);
        check("", &one, &["admin_token none -> *** Live"]);
        check(&one, "", &["admin_token *** -> none Live"]);
    }
}
