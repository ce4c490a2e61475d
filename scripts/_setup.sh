# Makes .venv at the top of the repository, from a lock with hashes. Sourced by the other scripts: `setup runtime`
# or `setup dev`; and `setup bench` in an environment of its own (scripts/bench). Nothing project-specific happens here: no check, no build beyond the editable install.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"

say() { printf '== %s\n' "$*"; }

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# The servers run on 3.11 to 3.13, so a newer interpreter is passed over.
_is_python() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

_find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    if _is_python "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  die "no Python 3.11, 3.12 or 3.13 was found; install one, so that python3 or python3.11 starts it"
}

# pip with the caller's sources of packages, but without settings that would change what is installed or where.
_pip() {
  local name
  (
    for name in $(compgen -e PIP_ || true); do
      case "$name" in
        PIP_INDEX_URL | PIP_EXTRA_INDEX_URL | PIP_NO_INDEX | PIP_FIND_LINKS | PIP_PROXY | PIP_CERT | PIP_CLIENT_CERT) ;;
        PIP_TRUSTED_HOST | PIP_TIMEOUT | PIP_DEFAULT_TIMEOUT | PIP_RETRIES | PIP_KEYRING_PROVIDER) ;;
        PIP_CACHE_DIR | PIP_NO_CACHE_DIR | PIP_CONFIG_FILE) ;;
        *) unset "$name" ;;
      esac
    done
    # These three may stand in a configuration file too; the environment goes before it.
    export PIP_USER=0 PIP_REQUIRE_HASHES=0 PIP_DISABLE_PIP_VERSION_CHECK=1
    "$venv/bin/python" -m pip --quiet --no-input "$@"
  )
}

_make_venv() {
  local python
  python="$(_find_python)"
  say "making $(basename "$venv") with $("$python" --version)"
  rm -rf "$venv"
  if ! "$python" -m venv "$venv"; then
    rm -rf "$venv"
    die "$python cannot make a virtual environment; on Debian and Ubuntu install python3-venv, then run this again"
  fi
  printf '%s\n' "$root" >"$venv/sottovoce-root"
}

# A virtual environment holds its own path: after the folder has moved, it must be made again.
_has_moved() {
  [ -f "$venv/sottovoce-root" ] && [ "$(cat "$venv/sottovoce-root")" != "$root" ]
}

_stamp() {
  cat "$root/locks/$1.txt" "$root/pyproject.toml" | "$venv/bin/python" -c \
    'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

_is_installed() {
  local stamp
  [ -f "$venv/sottovoce-$1" ] && stamp="$(_stamp "$1")" && [ "$(cat "$venv/sottovoce-$1")" = "$stamp" ]
}

# setup runtime|dev|bench: afterwards $venv holds what that lock names, and the project itself, editable.
setup() {
  local kind="$1"
  if _has_moved || ! _is_python "$venv/bin/python"; then _make_venv; fi
  # The dev lock holds all of the runtime lock.
  if _is_installed "$kind" || _is_installed dev; then return; fi
  say "installing locks/$kind.txt (about a minute the first time)"
  rm -f "$venv/sottovoce-runtime" "$venv/sottovoce-dev" "$venv/sottovoce-bench"
  _pip install --require-hashes --requirement "$root/locks/$kind.txt" ||
    die "the packages could not be installed; see pip's message above. Without a network connection, name a mirror or a folder of wheels in PIP_INDEX_URL or PIP_FIND_LINKS"
  _pip install --no-deps --no-build-isolation --editable "$root" ||
    die "the project itself could not be installed; see pip's message above"
  _stamp "$kind" >"$venv/sottovoce-$kind"
}
