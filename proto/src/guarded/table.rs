//! The guarded names. A row: the reason, its source, the names (`*` for any run of characters), and exceptions.
//!
//! To add one: find its family or open one; upper case; a prefix if the tool takes any option under it. `guarded::tests` has the
//! names of common secrets, which must pass.

use super::Family;

pub(super) const FAMILIES: &[Family] = &[
    // The system: loaders, the C library, service manager
    Family::new(
        "the dynamic loader loads code or searches libraries by it",
        "ld.so(8), dyld(1), musl's environment variables, sudo's initial_badenv_table (_RLD*, SHLIB_PATH, LDR_*, LIBPATH)",
        "LD_* DYLD_* _RLD* LDR_* SHLIB_PATH LIBPATH AUTHSTATE LDEMULATION",
    ),
    Family::new(
        "the C library loads, writes or resolves by it",
        "glibc unsecvars.h, musl MUSL_LOCPATH, mallopt(3), resolv.conf(5), hostname(7), gettext(3)",
        "GCONV_PATH GETCONF_DIR GLIBC_TUNABLES HOSTALIASES LOCALDOMAIN LOCPATH MUSL_LOCPATH MALLOC_* NIS_PATH NLSPATH \
         PATH_LOCALE RESOLV_* RES_OPTIONS TMPDIR TMP TEMP TZDIR POSIXLY_CORRECT TEXTDOMAIN TEXTDOMAINDIR OUTPUT_CHARSET \
         ICU_DATA DATEMSK",
    ),
    Family::new(
        "locale, terminal and time zone name files, and formats that programs print with",
        "sudo's initial_checkenv_table, terminfo(5), termcap(5), locale(7), tzset(3)",
        "LANG LANGUAGE LC_* LINGUAS TERM COLORTERM TZ TERMCAP TERMINFO TERMINFO_DIRS TERMPATH",
    ),
    Family::new(
        "programs, configuration and start files are searched there",
        "environ(7), XDG Base Directory Specification",
        "PATH HOME SHELL PWD OLDPWD XDG_*",
    ),
    Family::new(
        "the service manager's protocol with its services",
        "systemd.exec(5), sd_notify(3), sd_listen_fds(3)",
        "NOTIFY_SOCKET LISTEN_FDS LISTEN_PID LISTEN_FDNAMES LISTEN_PIDFDID WATCHDOG_PID WATCHDOG_USEC \
         CREDENTIALS_DIRECTORY ENCRYPTED_CREDENTIALS_DIRECTORY JOURNAL_STREAM INVOCATION_ID MAINPID MANAGERPID \
         MANAGERPIDFDID SYSTEMD_* FDSTORE MEMORY_PRESSURE_* RUNTIME_DIRECTORY STATE_DIRECTORY \
         CACHE_DIRECTORY LOGS_DIRECTORY CONFIGURATION_DIRECTORY DBUS_* SERVICE_RESULT TRIGGER_*",
    ),
    Family::new(
        "the sockets and settings of this product's own programs",
        "devbox-secretsd --help, devbox-exec --help",
        "DEVBOX_SECRETS_* DEVBOX_EXEC_*",
    ),
    Family::new(
        "a display server or desktop session sees what is typed",
        "X(7), Wayland, ICE",
        "DISPLAY WAYLAND_DISPLAY XAUTHORITY XAUTHLOCALHOSTNAME XENVIRONMENT XAPPLRESDIR XUSERFILESEARCHPATH \
         XFILESEARCHPATH SESSION_MANAGER ICEAUTHORITY",
    ),
    // Shells
    Family::new(
        "bash, ksh and POSIX sh source, expand or search by it",
        "sh(1p), bash(1), ksh(1), readline(3); PS1 and PS4 are expanded, with command substitution",
        "ENV BASH_* BASHOPTS SHELLOPTS KSH_* CDPATH IFS PS0 PS1 PS2 PS3 PS4 PROMPT_COMMAND PROMPT_DIRTRIM INPUTRC GLOBIGNORE \
         FIGNORE EXECIGNORE HIST* FCEDIT MAIL MAILPATH TIMEFORMAT",
    ),
    Family::new(
        "zsh sources, expands or searches by it",
        "zshparam(1), zshmisc(1)",
        "ZDOTDIR FPATH MODULE_PATH NULLCMD READNULLCMD TMPPREFIX TMPSUFFIX PROMPT PROMPT2 PROMPT3 PROMPT4 RPROMPT RPROMPT2 \
         RPS1 RPS2 SPROMPT PSVAR ZSH ZSH_* ZLE_* ZLS_* SAVEHIST WORDCHARS",
    ),
    Family::new("fish searches functions and start files by it", "fish(1), fish-doc", "FISH_*"),
    // Interpreters and runtimes
    Family::new(
        "Python loads code or takes options by it",
        "python(1), pytest(1), jupyter --paths",
        "PYTHON* IPYTHONDIR JUPYTER_PATH JUPYTER_CONFIG_* JUPYTER_DATA_DIR JUPYTER_RUNTIME_DIR PYTEST_ADDOPTS PYTEST_PLUGINS \
         PYENV_* VIRTUAL_ENV CONDA_* PYSPARK_*",
    )
    .except("PYTHONANYWHERE_* CONDA_TOKEN"),
    Family::new(
        "Perl loads code or takes options by it",
        "perlrun(1), perl5db.pl, local::lib(3), cpanm(1)",
        "PERL5* PERLLIB PERLIO* PERLDB_* PERL_*",
    ),
    Family::new(
        "Ruby, RubyGems or Bundler loads code or takes options by it",
        "ruby(1), gem environment, bundle-config(1)",
        "RUBYLIB* RUBYOPT RUBYSHELL RUBYPATH RUBY_* RUBYGEMS_GEMDEPS RUBYGEMS_HOST GEM_HOME GEM_PATH GEM_SPEC_CACHE GEM_SKIP \
         GEM_PRIVATE_KEY_PASSPHRASE_COMMAND GEMRC BUNDLE_GEMFILE BUNDLE_PATH BUNDLE_BIN* BUNDLE_APP_CONFIG BUNDLE_USER_* \
         BUNDLE_BUILD__* BUNDLE_MIRROR__* BUNDLE_LOCAL__* BUNDLE_SSL_* BUNDLE_WITH BUNDLE_REDIRECT BUNDLER_* RBENV_* RAKEOPT \
         IRBRC IRB_* PRYRC",
    ),
    Family::new(
        "Node.js loads code, takes options or trusts by it",
        "node(1), Node.js CLI documentation, ts-node, electron, nvm",
        "NODE_OPTIONS NODE_PATH NODE_EXTRA_CA_CERTS NODE_TLS_REJECT_UNAUTHORIZED NODE_REPL_* NODE_ICU_DATA NODE_V8_COVERAGE \
         NODE_COMPILE_CACHE* NODE_DEBUG* NODE_REDIRECT_WARNINGS NODE_CHANNEL_* NODE_UNIQUE_ID NODE_USE_* NODE_GYP_* \
         NODE_TEST_CONTEXT NODE_PRESERVE_* NODE_MODULES_* NODE_BINARY NODE_MIRROR TS_NODE_* ELECTRON_* ESBUILD_BINARY_PATH \
         PUPPETEER_EXECUTABLE_PATH CHROME_PATH NVM_*",
    )
    .except("ELECTRON_*TOKEN ELECTRON_*PASSWORD"),
    Family::new("Deno takes options, code or trust by it", "deno(1), deno help", "DENO_*")
        .except("DENO_*TOKEN DENO_*TOKENS"),
    Family::new("Bun takes options or code by it", "bun(1), bunfig documentation", "BUN_*").except("BUN_*TOKEN"),
    Family::new("Lua runs or searches code by it, also per version", "lua(1), LuaJIT, LuaRocks", "LUA_* LUAROCKS_*")
        .except("LUAROCKS_API_KEY"),
    Family::new(
        "PHP or Composer loads configuration or code by it",
        "php(1), pear(1), composer(1), xdebug documentation",
        "PHPRC PHP_INI_SCAN_DIR PHP_BINARY PHP_CLI_* PHP_PEAR_* COMPOSER COMPOSER_* XDEBUG_*",
    )
    .except("COMPOSER_AUTH COMPOSER_*TOKEN"),
    Family::new(
        "a Java virtual machine, or a tool that starts one, takes options or classes by it",
        "java(1), JVM TI specification (JAVA_TOOL_OPTIONS), javac(1), OpenJ9, mvn(1), gradle(1), sbt, ant(1), Tomcat, Hadoop, Spark",
        "JAVA_TOOL_OPTIONS JDK_* _JAVA_OPTIONS IBM_JAVA_OPTIONS OPENJ9_* JAVA_HOME JRE_HOME JAVACMD JAVA_OPTS JAVA_OPTIONS JVM_OPTS \
         JVM_ARGS CLASSPATH *_JAVA_OPTS *_JAVA_OPTIONS *_JVM_OPTS *_CLASSPATH MAVEN_OPTS MAVEN_ARGS MAVEN_DEBUG_* MAVEN_CONFIG \
         MAVEN_PROJECTBASEDIR MAVEN_BASEDIR MAVEN_HOME MAVEN_USER_HOME MAVEN_BATCH_* M2_HOME MVNW_REPOURL MVNW_VERBOSE \
         GRADLE_OPTS GRADLE_HOME GRADLE_USER_HOME SBT_OPTS SBT_HOME ANT_OPTS ANT_ARGS ANT_HOME CATALINA_* SCALA_HOME \
         GROOVY_* KOTLIN_HOME JYTHONPATH JRUBY_OPTS LEIN_* HADOOP_*OPTS HADOOP_HOME HADOOP_CONF_DIR SPARK_HOME SPARK_CONF_DIR \
         SPARK_SUBMIT_OPTS SDKMAN_* GRAALVM_HOME",
    )
    .except("LEIN_PASSWORD LEIN_USERNAME LEIN_PASSPHRASE"),
    Family::new(
        ".NET loads assemblies, profilers or settings by it",
        ".NET runtime configuration knobs, CoreCLR clrconfignames.h, MSBuild, NuGet",
        "DOTNET_* COMPLUS_* CORECLR_* COR_* ASPNETCORE_HOSTINGSTARTUP* MSBUILD* NUGET_PACKAGES NUGET_PLUGIN_* NUGET_NETCORE_* NUGET_NETFX_* \
         NUGET_FALLBACK_PACKAGES NUGET_HTTP_* NUGET_CERT_* DOTNETSDK* MONO_* POWERSHELL_* PSMODULEPATH \
         PSMODULEANALYSISCACHEPATH",
    ),
    Family::new(
        "R runs or searches code by it",
        "R Startup(7), R environment variables",
        "R_PROFILE* R_ENVIRON* R_LIBS* R_HOME R_DEFAULT_PACKAGES R_*CMD R_BROWSER R_PDFVIEWER R_PRINTCMD R_SHARE_DIR R_INCLUDE_DIR \
         R_DOC_DIR R_MAKEVARS_* R_TESTS R_ENABLE_JIT R_COMPILE_* RENV_* RSTUDIO_WHICH_R",
    ),
    Family::new("Julia runs or searches code by it", "Julia manual, environment variables", "JULIA_*"),
    Family::new(
        "Erlang or Elixir takes options or code by it",
        "erl(1), erlc(1), elixir(1), mix help, hex configuration",
        "ERL_* ERLC_* ELIXIR_* MIX_HOME MIX_ARCHIVES MIX_EXS MIX_PATH MIX_DEPS_PATH MIX_BUILD_* MIX_XDG MIX_REBAR* HEX_HOME \
         HEX_MIRROR* HEX_CACERTS_PATH HEX_UNSAFE_* HEX_TRUSTED_* HEX_NO_VERIFY* REBAR_* ROOTDIR BINDIR EMU",
    ),
    Family::new("Guile runs or searches code by it", "guile(1)", "GUILE_*"),
    Family::new("Tcl or Tk searches code by it", "tclsh(1), tclvars(3)", "TCLLIBPATH TCL_* TCL8* TCL9* TK_LIBRARY"),
    Family::new(
        "GHC, Cabal, Stack or a Haskell program takes options by it",
        "ghc(1), GHC users guide (RTS options), cabal(1), stack(1)",
        "GHC_* GHCRTS GHCUP_* CABAL_* STACK_ROOT STACK_YAML STACK_CONFIG STACK_GLOBAL_CONFIG STACK_WORK STACK_XDG HASKELL_DIST_DIR",
    )
    .except("CABAL_*TOKEN CABAL_*PASSWORD"),
    Family::new(
        "OCaml loads code or takes options by it",
        "ocamlrun(1), ocamlfind(1), opam(1)",
        "OCAML* CAML* OPAM*",
    ),
    Family::new(
        "Go's tools or runtime take options, tools or trust by it",
        "go help environment, documentation of the Go packages runtime and cmd/cgo",
        "GOFLAGS GOROOT GOPATH GOPROXY GONOPROXY GONOSUMDB GONOSUMCHECK GOSUMDB GOPRIVATE GOINSECURE GOENV GOTOOLCHAIN \
         GOTOOLDIR GOBIN GOCACHE GOCACHEPROG GODEBUG GOTRACEBACK GOEXPERIMENT GOAUTH GOVCS GOWORK GOMODCACHE GOTMPDIR \
         GOCOVERDIR GOFIPS140 GORACE GCCGO GCCGOTOOLDIR CGO_* GO111MODULE GO_EXTLINK_ENABLED GO_LDFLAGS GO_GCFLAGS",
    ),
    Family::new(
        "Rust's tools run, link or fetch by it",
        "rustc documentation, Cargo configuration (environment), rustup",
        "RUSTC RUSTC_* RUSTFLAGS RUSTDOC* RUSTFMT RUSTUP_* RUST_GDB RUST_LLDB CARGO CARGO_BUILD_* CARGO_TARGET_* CARGO_ALIAS_* \
         CARGO_HOME CARGO_ENCODED_* CARGO_INSTALL_ROOT CARGO_PROFILE_* CARGO_UNSTABLE_* CARGO_HTTP_* CARGO_NET_* \
         CARGO_CREDENTIAL_* CARGO_CACHE_* CARGO_RESOLVER_* CARGO_REGISTRY_CREDENTIAL_PROVIDER \
         CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS CARGO_REGISTRY_DEFAULT CARGO_REGISTRY_INDEX CARGO_REGISTRIES_*",
    )
    .except("CARGO_REGISTRIES_*_TOKEN CARGO_REGISTRIES_*_SECRET_KEY CARGO_NET_*TOKEN"),
    Family::new(
        "Swift, Dart, Flutter, Zig, Nim, D or Crystal searches code or tools by it",
        "the tools' manuals",
        "SWIFT_EXEC SWIFT_DRIVER_* SWIFTPM_* TOOLCHAINS SDKROOT DEVELOPER_DIR XCODE_* DART_VM_OPTIONS DART_FLAGS PUB_CACHE \
         PUB_HOSTED_URL FLUTTER_ROOT FLUTTER_STORAGE_BASE_URL ZIG_* NIMBLE_DIR DFLAGS DUB_HOME DPATH CRYSTAL_* SHARDS_*",
    ),
    Family::new(
        "awk, Emacs Lisp, Prolog, Scheme or Lisp loads code by it",
        "gawk(1), emacs(1), swipl(1), sbcl(1), racket(1)",
        "AWKPATH AWKLIBPATH AWKBUFSIZE GAWK_* EMACS* SWI_* SBCL_* RACKET* PLT* CHICKEN_* CHEZSCHEMELIBDIRS CL_SOURCE_REGISTRY \
         GAMBOPT CHIBI_*",
    ),
    // Build tools and compilers
    Family::new(
        "make takes options, files or recipes by it; implicit rules run its tools by these names",
        "make(1), GNU make manual 5.6, 5.7.3 and 10.3",
        "MAKE MAKEFLAGS MFLAGS MAKEFILES GNUMAKEFLAGS MAKEFILE_LIST MAKEOVERRIDES MAKELEVEL MAKESHELL MAKE_TERMOUT MAKE_TERMERR \
         MAKE_RESTARTS MAKESYSPATH MAKEOBJDIR* BSDMAKE VPATH AR AS CC CXX CPP FC F77 F90 M2C PC CO GET LD LEX YACC LINT \
         MAKEINFO TEX TEXI2DVI WEAVE CWEAVE TANGLE CTANGLE RM INSTALL NM RANLIB STRIP OBJCOPY OBJDUMP READELF DLLTOOL WINDRES \
         ARFLAGS ASFLAGS CFLAGS CXXFLAGS COFLAGS CPPFLAGS FFLAGS F90FLAGS FCFLAGS GFLAGS LDFLAGS LDLIBS LOADLIBES LIBS LFLAGS \
         YFLAGS PFLAGS RFLAGS LINTFLAGS OUTPUT_OPTION TARGET_ARCH TARGET_MACH",
    ),
    Family::new(
        "a compiler, linker or compiler cache runs programs, or takes options or paths by it",
        "gcc(1) ENVIRONMENT, clang(1), ccache(1), distcc(1), sccache, icecc(1), nvcc, cmake-env-variables(7) for languages",
        "GCC_* COMPILER_PATH LIBRARY_PATH CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH OBJC_INCLUDE_PATH OBJCPLUS_INCLUDE_PATH \
         DEPENDENCIES_OUTPUT SUNPRO_DEPENDENCIES COLLECT_* CCC_* CLANG_* CCACHE_* DISTCC_* SCCACHE_CONF SCCACHE_DIR \
         SCCACHE_ERROR_LOG SCCACHE_SERVER_* ICECC_* NVCC_* CUDA_HOME CUDA_PATH CUDACXX CUDAFLAGS CUDAHOSTCXX HIPCXX HIPFLAGS HIPHOSTCXX ISPC ISPCFLAGS SWIFTC CSFLAGS RC RCFLAGS HOSTCC HOSTCXX HOSTLD \
         HOSTCFLAGS CROSS_COMPILE OBJC OBJCXX OBJCFLAGS OBJCXXFLAGS CC_* CXX_* AR_* CFLAGS_* CXXFLAGS_* LDFLAGS_* TARGET_CC HOST_CC",
    )
    .except("CCACHE_*PASSWORD CC_*TOKEN CC_*KEY CC_*SECRET CC_*PASSWORD AR_*TOKEN AR_*KEY AR_*SECRET AR_*PASSWORD"),
    Family::new(
        "a build generator runs programs or searches files by it",
        "cmake-env-variables(7), ctest(1), pkg-config(1), autoconf, m4(1), scons(1), meson, bazel, qmake",
        "CMAKE_* CTEST_* CPACK_* NINJAFLAGS PKG_CONFIG* CONFIG_SITE CONFIG_SHELL CONFIGURE_OPTS ACLOCAL* AUTOCONF AUTOMAKE \
         AUTOHEADER AUTOM4TE* AUTOPOINT AUTORECONF* M4 M4PATH LIBTOOL LIBTOOLIZE SCONSFLAGS SCONS_* MESON_* BAZEL_SH BAZEL_VC \
         BAZEL_PYTHON BAZEL_CXXOPTS BAZEL_LINKOPTS BAZEL_COMPILER BAZELISK_* USE_BAZEL_VERSION BUILDIFIER QMAKE* \
         BISON_* FLEX_* BUCK_* SWIG_LIB PROTOC PROTOC_* CONAN_HOME CONAN_USER_HOME VCPKG_* CMAKELISTS",
    )
    .except("BAZELISK_*TOKEN VCPKG_*TOKEN"),
    // Package managers
    Family::new(
        "npm, Yarn, pnpm or Corepack takes any of its settings by it, a registry and a script shell among them",
        "npm-config(7), Yarn configuration, pnpm configuration, Corepack",
        "NPM_CONFIG_* YARN_* PNPM_* COREPACK_*",
    )
    .except("NPM_CONFIG__AUTH* NPM_CONFIG_*TOKEN YARN_*TOKEN YARN_*AUTH_IDENT PNPM_*TOKEN COREPACK_NPM_TOKEN \
             COREPACK_NPM_USERNAME COREPACK_NPM_PASSWORD"),
    Family::new(
        "a Python package manager takes any of its settings by it, an index to install from among them",
        "pip(1), uv environment variables, Poetry configuration, Pipenv, PDM, Hatch, pipx",
        "PIP_* UV_* POETRY_* PIPENV_* PIPX_* PDM_* HATCH_* SETUPTOOLS_* DISTUTILS_* EASY_INSTALL_*",
    )
    .except("UV_*TOKEN UV_*PASSWORD UV_*USERNAME POETRY_PYPI_TOKEN_* POETRY_HTTP_BASIC_* PDM_*PASSWORD PDM_*USERNAME \
             HATCH_INDEX_USER HATCH_INDEX_AUTH PIP_*TOKEN PIP_*PASSWORD"),
    Family::new(
        "a system's package manager takes options, sources or trust by it",
        "apt.conf(5), dpkg(1), rpm(8), brew(1), nix.conf(5), guix(1), flatpak(1), mise, asdf",
        "APT_CONFIG APT_LISTCHANGES_* APT_LISTBUGS_* DPKG_* DEB_* DEBIAN_* DEBCONF_* DEBSIGN_* RPM_* HOMEBREW_* NIX_* NIXPKGS_* \
         GUIX_* FLATPAK_* ASDF_* MISE_* FNM_* VOLTA_HOME DIRENV_* NEEDRESTART_* UCF_*",
    )
    .except("HOMEBREW_*TOKEN HOMEBREW_*PASSWORD MISE_*TOKEN NIX_*TOKEN"),
    // Version control and remote shells
    Family::new(
        "git runs programs, or takes configuration, repositories or trust by it",
        "git(1), git-config(1), gitcredentials(7), environment.h of git",
        "GIT_ALLOW_PROTOCOL GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_ATTR_* GIT_CEILING_DIRECTORIES GIT_COMMON_DIR GIT_CONFIG \
         GIT_CONFIG_* GIT_DIR GIT_DISCOVERY_* GIT_EXEC_PATH GIT_EXTERNAL_DIFF GIT_DIFF_* GIT_INDEX_FILE GIT_GRAFT_FILE GIT_NAMESPACE \
         GIT_OBJECT_DIRECTORY GIT_PROTOCOL GIT_PROTOCOL_FROM_USER GIT_PROXY_* GIT_REDIRECT_* GIT_REPLACE_REF_BASE GIT_NO_LAZY_FETCH GIT_NO_REPLACE_OBJECTS GIT_SHALLOW_FILE GIT_SSH GIT_SSH_COMMAND \
         GIT_SSH_VARIANT GIT_SSL_* GIT_CURL_* GIT_TEMPLATE_DIR GIT_TRACE* GIT_WORK_TREE GIT_TERMINAL_PROMPT \
         GIT_LFS_* GIT_CREDENTIAL_HELPER GIT_MERGE_* GIT_MAN_VIEWER GCM_*",
    )
    .except("GIT_LFS_*TOKEN GIT_LFS_*PASSWORD"),
    Family::new(
        "another version control tool runs programs or takes configuration by it",
        "hg(1), svn(1), cvs(1), brz(1), p4(1), darcs(1), gh(1), glab(1)",
        "HG HGRCPATH HGRCSKIPREPO HGMERGE HGPLAIN* HGENCODING* HGEXECUTABLEPATH HGDEMANDIMPORT HGMODULEPOLICY HGEDITOR SVN_* CVS_* \
         CVSROOT CVSREAD CVSEDITOR CVSIGNORE BZR_* BRZ_* P4CONFIG P4EDITOR P4DIFF* P4MERGE* P4PAGER P4ENVIRO P4ALIASES P4TRUST \
         P4TICKETS DARCS_* GH_PATH GH_CONFIG_DIR GH_FORCE_TTY GLAB_CONFIG_DIR QUILT_* PATCH_* DIFF_OPTIONS",
    )
    .except("SVN_*PASSWORD SVN_*TOKEN SVN_*USERNAME SVN_USER CVS_PASSWORD"),
    Family::new(
        "a remote shell or key agent is run or trusted by it",
        "ssh(1), ssh-agent(1), rsync(1), gpg(1), sudo(8), doas(1), p11-kit(8)",
        "SSH_AUTH_SOCK SSH_ASKPASS_REQUIRE SSH_SK_* SSH_PKCS11_HELPER SSH_AGENT_PID RSH RSYNC_RSH RSYNC_CONNECT_PROG RSYNC_SHELL \
         RSYNC_ICONV RSYNC_CHECKSUM_LIST RSYNC_PARTIAL_DIR GNUPGHOME GPG_AGENT_INFO PINENTRY_* SUDO_EDITOR SUDO_PROMPT \
         SUDO_COMMAND SUDO_USER SUDO_UID SUDO_GID PKCS11_MODULE_PATH PKCS11_PROVIDER_* P11_KIT_* SOFTHSM2_CONF OPENSC_* \
         AUTOSSH_* MOSH_*",
    ),
    Family::new("a program is run to ask for a password", "ssh(1), sudo(8), gitcredentials(7)", "*_ASKPASS"),
    // Archivers, editors, pagers, everyday tools
    Family::new(
        "an archiver takes options by it, a program to run among them",
        "tar(1), zip(1) ZIPOPT with -TT, unzip(1), gzip(1), bzip2(1), xz(1), zstd(1), lzop(1)",
        "TAR_* TAPE TARGET_RSH ZIP ZIPOPT ZIPINFO ZIPINFOOPT UNZIP UNZIPOPT GZIP PIGZ BZIP BZIP2 XZ_DEFAULTS XZ_OPT LZMA_* ZSTD_* \
         LZOP LZ4_* P7ZIP_* COMPRESS",
    ),
    Family::new(
        "a program is run as pager, editor or browser",
        "environ(7), less(1), man(1), vim(1), emacsclient(1), more(1), git(1), psql(1)",
        "PAGER *_PAGER MANPAGER EDITOR VISUAL *_EDITOR BROWSER *_BROWSER ALTERNATE_EDITOR VIEWER TERMINAL",
    ),
    Family::new(
        "a pager or editor runs programs or takes commands by it",
        "less(1) LESSOPEN and LESSKEY, man(1), vim(1), ex(1), nvim(1), groff(1), bat(1), delta(1)",
        "LESS LESS_* LESSOPEN LESSCLOSE LESSKEY* LESSHISTFILE LESSECHO LESSEDIT LESSCHARSET LESSCHARDEF LESSUTFCHARDEF LESSBINFMT LESSUTFBINFMT LESSMETACHARS \
         LESSMETAESCAPE LESSSECURE* LESSGLOBALTAGS LESSSEPARATOR LESSANSI* MORE MANOPT MANPATH MANROFF* MANLESS MANSECT LV MOST_* \
         VIM VIMRUNTIME VIMINIT GVIMINIT EXINIT MYVIMRC NVIM NVIM_* NEXINIT JOE_* MC_* BAT_* DELTA_* GROFF_* NANO_*",
    ),
    Family::new(
        "TeX, Ghostscript or a media tool searches code or writes files by it",
        "kpathsea manual (any texmf.cnf variable, shell_escape too), gs(1), ImageMagick, ffmpeg(1) FFREPORT, file(1)",
        "TEXMF* TEXINPUTS* TEXFORMATS* TEXFONTS* BIBINPUTS* BSTINPUTS* LUAINPUTS* CLUAINPUTS* MFINPUTS* MPINPUTS* SHELL_ESCAPE* \
         OPENIN_ANY OPENOUT_ANY GS GS_* MAGICK_* MAGIC FFREPORT FFMPEG_* GST_* LADSPA_PATH LV2_PATH VST_PATH FREI0R_PATH ASPELL_CONF \
         DICPATH",
    ),
    Family::new(
        "an everyday tool takes options, commands or files by it",
        "grep(1), rg(1) --pre, fzf(1), screen(1), tmux(1), ack(1), parallel(1), bc(1), strace(1), wget(1), curl(1), lynx(1)",
        "GREP_OPTIONS GREP_COLORS RIPGREP_CONFIG_PATH FZF_* SCREENRC SYSSCREENRC SCREENDIR TMUX TMUX_* ACKRC ACK_* PARALLEL PARALLEL_* \
         BC_ENV_ARGS STRACE_OPTS WGETRC SYSTEM_WGETRC WGET2RC CURL_HOME LYNX_* HTTPIE_CONFIG_DIR NETRC MAILRC MAILCAPS MUTTRC \
         RLWRAP_* XARGS_* TIME TIME_STYLE LS_OPTIONS WATCH_* MTOOLSRC W3M_* POSIX_ME_HARDER DC_* UNITSFILE ARG_MAX_*",
    ),
    Family::new(
        "a database client runs commands from files, or loads plugins, by it",
        "psql(1), libpq environment, mysql(1), sqlite3(1), unixODBC, Oracle Instant Client",
        "PSQLRC PSQL_HISTORY PGSYSCONFDIR PGSERVICEFILE PGLOCALEDIR MYSQL_HOME LIBMYSQL_* MYSQL_TEST_LOGIN_FILE SQLITE_HISTORY \
         SQLITE_TMPDIR ODBCINI ODBCSYSINI ODBCINSTINI ODBCINSTINST FREETDS FREETDSCONF TNS_ADMIN ORACLE_HOME SQLPATH ORACLE_PATH \
         HDF5_PLUGIN_PATH GDAL_DRIVER_PATH GDAL_DATA PROJ_LIB PROJ_DATA USQL_CONFIG",
    ),
    // Trust and network
    Family::new(
        "TLS trusts, logs keys or loads modules by it",
        "openssl-env(7), curl(1), requests, NSS, GnuTLS, Mozilla SSLKEYLOGFILE, gRPC, LWP, Vault CLI",
        "OPENSSL OPENSSL_* CTLOG_FILE QLOGDIR RANDFILE SSL_CERT_* SSLKEYLOGFILE SSL_DIR NSS_* GNUTLS_* REQUESTS_CA_BUNDLE CURL_CA_BUNDLE CURL_SSL_BACKEND AWS_CA_BUNDLE \
         GRPC_DEFAULT_SSL_ROOTS_FILE_PATH HTTPS_CA_FILE HTTPS_CA_DIR HTTPS_DEBUG VAULT_CACERT VAULT_CAPATH VAULT_SKIP_VERIFY \
         VAULT_TLS_SERVER_NAME CONSUL_CACERT CONSUL_CAPATH CONSUL_HTTP_SSL_VERIFY NOMAD_CACERT NOMAD_SKIP_VERIFY ETCDCTL_CACERT \
         ETCDCTL_INSECURE_* SASL_PATH SASL_CONF_PATH LDAPCONF LDAPRC LDAPNOINIT LDAPTLS_* TLS_REQCERT CRYPTOGRAPHY_OPENSSL_*",
    ),
    Family::new(
        "requests go through another host, packages and code among them",
        "curl(1), wget(1), CGI's httpoxy advisory; lower case is read too",
        "HTTP_PROXY HTTPS_PROXY ALL_PROXY FTP_PROXY NO_PROXY RSYNC_PROXY SOCKS_PROXY SOCKS_SERVER SOCKS5_SERVER WS_PROXY WSS_PROXY \
         GOPHER_PROXY TSOCKS_* TORSOCKS_* PROXYCHAINS_* AUTO_PROXY",
    ),
    Family::new(
        "Kerberos or an authentication library takes configuration by it",
        "kerberos(7), sudo's initial_badenv_table (KRB5_CONFIG*, VAR_ACE, USR_ACE, DLC_ACE)",
        "KRB5_* KRB5CCNAME KRB5RCACHE* KRB5RCNAME KRB5TRACE KRBCONFDIR KRBTKFILE GSS_* VAR_ACE USR_ACE DLC_ACE",
    ),
    // Containers and clouds: files that name programs to run
    Family::new(
        "a cluster or container tool runs programs or trusts servers by the files it names",
        "kubectl (exec credential plugins), docker(1), podman(1), helm(1), containers.conf(5), buildah(1)",
        "KUBECONFIG KUBECACHEDIR KUBECTL_* KUBERC DOCKER_CONFIG DOCKER_CONTEXT DOCKER_HOST DOCKER_CERT_PATH DOCKER_TLS* \
         DOCKER_BUILDKIT DOCKER_CLI_* DOCKER_CONTENT_TRUST DOCKER_CONTENT_TRUST_SERVER BUILDX_* BUILDKIT_HOST BUILDAH_* \
         COMPOSE_FILE COMPOSE_ENV_FILES COMPOSE_PROJECT_* COMPOSE_PATH_SEPARATOR CONTAINERS_* CONTAINER_HOST CONTAINER_CONNECTION \
         HELM_* KREW_* MINIKUBE_* KIND_EXPERIMENTAL_* SKAFFOLD_*",
    )
    .except("HELM_*TOKEN HELM_*PASSWORD HELM_*USERNAME HELM_PASS HELM_USER"),
    Family::new(
        "a cloud tool runs programs from the files it names, or takes options, by it",
        "AWS CLI (credential_process), gcloud(1), Azure CLI, Terraform CLI, OpenTofu (TF_ENCRYPTION with an external key provider), Ansible configuration, Pulumi",
        "AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE AWS_CLI_* AWS_DATA_PATH BOTO_CONFIG CLOUDSDK_* \
         GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES AZURE_CONFIG_DIR AZURE_EXTENSION_* TF_CLI_* TF_PLUGIN_CACHE_DIR TF_DATA_DIR \
         TF_REATTACH_PROVIDERS TF_LOG_PATH TF_ENCRYPTION TERRAFORM_CONFIG TG_TF_PATH TERRAGRUNT_TFPATH ANSIBLE_* PULUMI_HOME PACKER_CONFIG* \
         PACKER_PLUGIN_PATH PACKER_RUN_* VAGRANT_HOME VAGRANT_CWD VAGRANT_VAGRANTFILE OCI_CLI_CONFIG_FILE OCI_CLI_RC_FILE",
    )
    .except("CLOUDSDK_AUTH_ACCESS_TOKEN ANSIBLE_*TOKEN ANSIBLE_*PASSWORD ANSIBLE_*PASS ANSIBLE_*KEY"),
    Family::new(
        "a program is run to ask for a password or key, or a backup tool's remote end is started by it",
        "restic, rclone and Borg documentation (environment variables), SOPS README, pass(1), gitcredentials(7)",
        "*_PASSWORD_COMMAND *_PASSCOMMAND *_KEY_CMD *_TOKEN_COMMAND *_IDENTITY_COMMAND BORG_RSH BORG_REMOTE_PATH BORG_CONFIG_DIR \
         RCLONE_CONFIG SOPS_GPG_EXEC PASSWORD_STORE_EXTENSIONS_DIR PASSWORD_STORE_ENABLE_EXTENSIONS PASSWORD_STORE_GPG_OPTS",
    ),
    // Debuggers, sanitizers, plugins of libraries
    Family::new(
        "a debugger, profiler or sanitizer takes options or writes files by it",
        "gdb(1), lldb(1), valgrind(1), perf(1), gcov(1), sanitizers' documentation, gperftools, OpenMP",
        "GDB* LLDB_* VALGRIND_* PERF_EXEC_PATH PERF_CONFIG PERF_BUILDID_DIR DEBUGINFOD_* ASAN_* LSAN_* MSAN_* TSAN_* UBSAN_* \
         HWASAN_* *SAN_OPTIONS *SAN_SYMBOLIZER_PATH LLVM_* GCOV_* GMON_* HEAPPROFILE HEAPCHECK CPUPROFILE TCMALLOC_* MIMALLOC_* \
         JEMALLOC_* OMP_TOOL* LTTNG_* SEGFAULT_* MTRACE_*",
    ),
    Family::new(
        "a desktop or GPU library loads plugins by it",
        "GTK, GIO, Qt, Vulkan loader, OpenCL ICD loader, CUDA driver, ROCm, Mesa",
        "GTK_* GDK_PIXBUF_* GIO_* GI_TYPELIB_PATH GSETTINGS_* GLIB_* G_MESSAGES_* QT_* QML* KDE_* FONTCONFIG_* PANGO_* VK_* OCL_ICD_* \
         LIBGL_* LIBVA_* VDPAU_DRIVER* GBM_* MESA_* EGL_* __EGL_* __GLX_* CUDA_INJECTION64_PATH NVIDIA_TOOLS_CONFIG NVTX_* NCCL_* \
         HSA_* ROCP_* ROCM_PATH ALSA_CONFIG_* PULSE_* JACK_* SDL_* CUPS_* CANBERRA_*",
    ),
];
