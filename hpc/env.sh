# shellcheck shell=bash
# The environment, to be sourced: a virtual environment made once from pyproject.toml and hpc/constraints.txt, or the
# site's own Python. Sets PATH; says one line and returns non-zero when it cannot.
#   PT_VENV=PATH  where the environment lies (default .venv in the checkout)
#   PT_VENV=none  use the python on PATH as it is: the site's modules are loaded, nothing is installed or removed
#   PT_PYTHON     the interpreter that makes it (default: the first python3 of at least 3.11)
#   PT_EXTRAS     the extras of pyproject.toml that it gets, with commas between (default test: what the tests need)
#   PT_SITE=NAME  the profile hpc/sites/NAME.sh, read first (default: the one whose `# hosts:` fit, else generic)

pt_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# the profile of this machine: modules, partition, network, scratch
pt_site() {
  local site=${PT_SITE:-} profile pattern
  if [ -z "$site" ]; then
    for profile in "$pt_root"/hpc/sites/*.sh; do
      while read -r pattern; do
        # shellcheck disable=SC2053 # a pattern it is
        if [[ $HOSTNAME == $pattern ]]; then site=$(basename "$profile" .sh); fi
      done < <(sed -n 's/^# hosts: *//p' "$profile" | tr -s ' ' '\n')
    done
  fi
  site=${site:-generic}
  if [[ ! $site =~ ^[A-Za-z0-9_-]+$ || ! -f $pt_root/hpc/sites/$site.sh ]]; then
    echo "hpc/env.sh: PT_SITE=$site: there is no hpc/sites/$site.sh; a bare name, one of $(cd "$pt_root/hpc/sites" && echo *.sh)" >&2
    return 1
  fi
  # shellcheck source=/dev/null
  . "$pt_root/hpc/sites/$site.sh"
}

pt_find_python() {
  local candidate
  for candidate in ${PT_PYTHON:-python3 python3.13 python3.12 python3.11 python3.14}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return 0
    fi
  done
  echo "hpc/env.sh: no Python of at least 3.11 is on PATH: install one (sudo apt install python3) or set PT_PYTHON" >&2
  return 1
}

# Debian and Ubuntu keep pip's seed (ensurepip) in a package of its own, python3-venv
pt_make_venv() {
  local python=$1 venv=$2 version
  "$python" -m venv "$venv" >/dev/null 2>&1 && return 0
  rm -rf "$venv"
  if "$python" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --without-pip "$venv" && "$python" -m pip --python "$venv/bin/python" install --quiet pip && return 0
    rm -rf "$venv"
  fi
  version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
  local sudo=""
  [ "$(id -u)" = 0 ] || sudo="sudo -n"
  if command -v apt-get >/dev/null && { [ -z "$sudo" ] || $sudo true 2>/dev/null; }; then
    echo "hpc/env.sh: installing $version" >&2
    { $sudo apt-get install -y -qq "$version" || { $sudo apt-get update -qq && $sudo apt-get install -y -qq "$version"; }; } >/dev/null 2>&1
    "$python" -m venv "$venv" && return 0
  fi
  echo "hpc/env.sh: $python cannot make virtual environments: sudo apt install $version" >&2
  return 1
}

pt_install() {
  local venv=$1 stamp=$2 python
  python=$(pt_find_python) || return 1
  echo "hpc/env.sh: making the environment in $venv, once (some minutes, most of them for torch)" >&2
  # another Python made the one that is there, or it was left half-made: start over
  "$venv/bin/python" -m pip --version >/dev/null 2>&1 || { rm -rf "$venv" && pt_make_venv "$python" "$venv"; } || return 1
  local torch
  torch=$(grep '^torch==' "$pt_root/hpc/constraints.txt")
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$torch" || return 1
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$pt_root/hpc/constraints.txt" -e "${pt_root}[${PT_EXTRAS:-test}]" || return 1
  # torchaudio's compiled extension needs CUDA's libraries; without it torchaudio runs its Python transforms.
  # Only here, in the environment made above, and only beside a torch without CUDA.
  "$venv/bin/python" - <<'PYTHON' || return 1
import importlib.util, pathlib, torch
found = importlib.util.find_spec("torchaudio")
if torch.version.cuda is None and found is not None and found.origin:
    for library in (pathlib.Path(found.origin).parent / "lib").glob("*.so"):
        library.unlink()
PYTHON
  echo "$stamp" >"$venv/.pt-stamp"
}

# what an environment was made from and for
pt_stamp() {
  cat "$pt_root/pyproject.toml" "$pt_root/hpc/constraints.txt" "$pt_root/hpc/env.sh" | cksum
  echo "$pt_root ${PT_EXTRAS:-test}"
}

pt_env() {
  [ "${PT_VENV:-}" = none ] && return 0
  local venv=${PT_VENV:-$pt_root/.venv} stamp
  stamp=$(pt_stamp)
  if [ "$(cat "$venv/.pt-stamp" 2>/dev/null)" != "$stamp" ]; then
    mkdir -p "$(dirname "$venv")"
    # nodes that start together make it once
    (
      if command -v flock >/dev/null; then flock 9; fi
      [ "$(cat "$venv/.pt-stamp" 2>/dev/null)" = "$stamp" ] || pt_install "$venv" "$stamp"
    ) 9>"$venv.lock" || return 1
  fi
  export PATH="$venv/bin:$PATH" VIRTUAL_ENV="$venv"
}

pt_site && pt_env
