//! Environment names that steer what a program loads, runs or trusts before its first own line.
//!
//! Whoever may store a secret must not thereby be able to run code in every devbox: a variable of such a name is injected
//! only where a rule names it exactly, never through a glob.

/// Prefixes. `LD_*`: the dynamic loader (ld.so(8)).
const PREFIXES: [&[u8]; 2] = [b"LD_", b"GIT_CONFIG_"];

/// What the C library ignores in set-user-id programs (glibc, `unsecvars.h`): files that it loads or writes, and how it
/// resolves host names.
const C_LIBRARY: [&[u8]; 13] = [
    b"GCONV_PATH",
    b"GETCONF_DIR",
    b"GLIBC_TUNABLES",
    b"HOSTALIASES",
    b"LOCALDOMAIN",
    b"LOCPATH",
    b"MALLOC_TRACE",
    b"NIS_PATH",
    b"NLSPATH",
    b"RESOLV_HOST_CONF",
    b"RES_OPTIONS",
    b"TMPDIR",
    b"TZDIR",
];

/// What shells search, source or expand (sh(1), bash(1), zsh(1)), and where per-user start files are looked for.
const SHELLS: [&[u8]; 14] = [
    b"BASHOPTS",
    b"BASH_ENV",
    b"CDPATH",
    b"ENV",
    b"FPATH",
    b"HOME",
    b"IFS",
    b"PATH",
    b"PROMPT_COMMAND",
    b"PS4",
    b"SHELL",
    b"SHELLOPTS",
    b"XDG_CONFIG_HOME",
    b"ZDOTDIR",
];

/// Code, options or module paths that interpreters take from the environment.
const INTERPRETERS: [&[u8]; 27] = [
    b"CLASSPATH",
    b"DOTNET_STARTUP_HOOKS",
    b"GEM_HOME",
    b"GEM_PATH",
    b"JAVA_TOOL_OPTIONS",
    b"JDK_JAVA_OPTIONS",
    b"LUA_CPATH",
    b"LUA_INIT",
    b"LUA_PATH",
    b"NODE_OPTIONS",
    b"NODE_PATH",
    b"PERL5DB",
    b"PERL5LIB",
    b"PERL5OPT",
    b"PERLLIB",
    b"PHPRC",
    b"PHP_INI_SCAN_DIR",
    b"PYTHONBREAKPOINT",
    b"PYTHONHOME",
    b"PYTHONINSPECT",
    b"PYTHONPATH",
    b"PYTHONSTARTUP",
    b"PYTHONUSERBASE",
    b"PYTHONWARNINGS",
    b"RUBYLIB",
    b"RUBYOPT",
    b"_JAVA_OPTIONS",
];

/// Programs and libraries that other programs run or load by name, and where TLS keys are written to.
const PROGRAMS: [&[u8]; 18] = [
    b"BROWSER",
    b"EDITOR",
    b"GIT_ASKPASS",
    b"GIT_EDITOR",
    b"GIT_EXEC_PATH",
    b"GIT_EXTERNAL_DIFF",
    b"GIT_PAGER",
    b"GIT_PROXY_COMMAND",
    b"GIT_SSH",
    b"GIT_SSH_COMMAND",
    b"LESSOPEN",
    b"MANPAGER",
    b"OPENSSL_CONF",
    b"OPENSSL_ENGINES",
    b"OPENSSL_MODULES",
    b"PAGER",
    b"SSLKEYLOGFILE",
    b"VISUAL",
];

/// Whether only a rule that names `name` exactly grants it.
#[must_use]
pub fn is_guarded(name: &[u8]) -> bool {
    let lists: [&[&[u8]]; 4] = [&C_LIBRARY, &SHELLS, &INTERPRETERS, &PROGRAMS];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || lists.iter().any(|list| list.binary_search(&name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_in_order_for_the_search() {
        for list in [&C_LIBRARY[..], &SHELLS, &INTERPRETERS, &PROGRAMS] {
            assert!(list.is_sorted());
        }
    }

    #[test]
    fn loaders_shells_and_interpreters_are_guarded() {
        for name in [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "PATH",
            "BASH_ENV",
            "ENV",
            "IFS",
            "HOME",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "NODE_OPTIONS",
            "PERL5OPT",
            "PERL5LIB",
            "RUBYOPT",
            "GCONV_PATH",
            "GLIBC_TUNABLES",
            "PROMPT_COMMAND",
            "SHELLOPTS",
            "BASHOPTS",
            "PS4",
            "GIT_SSH_COMMAND",
            "GIT_CONFIG_COUNT",
        ] {
            assert!(is_guarded(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn secrets_of_everyday_names_are_not() {
        for name in ["DATABASE_PASSWORD", "API_KEY", "GIT_TOKEN", "MY_PATH", "OLD_KEY", "path", ""] {
            assert!(!is_guarded(name.as_bytes()), "{name}");
        }
    }
}
