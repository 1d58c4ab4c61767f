"""Completion of commands, flags and their values by a shell, from what help says of them."""

from collections.abc import Iterable, Mapping
from typing import Literal

from hyperofa.commands import COMMANDS, TRAINING_COMMANDS
from hyperofa.help import Flag, flags_of, training_flags
from hyperofa.presets import preset_names

_SCRIPT = """\
_hyperofa() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}} known= place=1
  case $command in {groups}) ((COMP_CWORD > 1)) && {{ command+=" ${{COMP_WORDS[2]}}"; place=2; }} ;; esac
  if ((COMP_CWORD <= place)); then
    case $place:$before in
{seconds}
      *) known="{firsts}" ;;
    esac
  elif [[ $word == -* ]]; then
    case $command in
{flags}
    esac
  else
    case "$command $before" in
{values}
      *" --config") known="{presets}" ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$known" -- "$word"))
}}
complete -o default -F _hyperofa hyperofa
"""
_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def completion(shell: Literal["bash", "zsh"] = "bash") -> str:
    """Print what lets a shell complete commands, flags and values.

    Args:
        shell: bash or zsh; `eval "$(hyperofa completion bash)"` in ~/.bashrc makes it know them.
    """
    flags: dict[str, list[Flag]] = {name: flags_of(command) for name, command in COMMANDS.items()}
    flags |= {name: training_flags(name) for name in TRAINING_COMMANDS}
    kinds: dict[str, list[str]] = {}
    for name in COMMANDS:
        first, _, second = name.partition(" ")
        if second:
            kinds.setdefault(first, []).append(second)
    choices = {
        f"{name} --{flag.name}": found for name, of in flags.items() for flag in of if (found := _choices(flag.value))
    }
    choices |= {"config config": ["list", "show"], "config show": preset_names()}
    script = _SCRIPT.format(
        groups="|".join(kinds),
        seconds=_cases({f"2:{first}": seconds for first, seconds in kinds.items()}),
        firsts=" ".join(dict.fromkeys(name.partition(" ")[0] for name in flags)),
        flags=_cases({name: [f"--{flag.name}" for flag in of] for name, of in flags.items()}),
        values=_cases(choices),
        presets=" ".join(preset_names()),
    )
    return (_ZSH if shell == "zsh" else "") + script.rstrip()


def _choices(value: str) -> list[str]:
    """The words that a flag takes, without those that stand for others, such as TEXT."""
    found = value.split("|")
    return [word for word in found if word.islower()] if len(found) > 1 else []


def _cases(known: Mapping[str, Iterable[str]]) -> str:
    return "\n".join(f'      "{pattern}") known="{" ".join(words)}" ;;' for pattern, words in known.items())
