// The scripts that complete pup's command lines, made from the table of
// manual.hpp. Ids come from the running supervisor that a command would mean;
// without one nothing is offered and nothing is said.
#include "pup/runtime/manual.hpp"

#include <map>
#include <vector>

namespace pup {

namespace {

// Letters of ids alone: bash expands what it offers, and who answers is not
// always a supervisor of one's own.
constexpr std::string_view list_ids =
    R"--(pup status --json 2>/dev/null | grep -o '"id":"[A-Za-z0-9@._-]*"' | cut -d'"' -f4)--";

constexpr std::string_view strategies =
    "round-robin source-ip-hash least-connections least-time random";

constexpr std::string_view bash_template = R"--(# bash completion for pup
_pup() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
  local command= options= i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      --name|--config|--timeout|--id|--instances|--output|-o) ((i++)) ;;
      -*) ;;
      *) command=${COMP_WORDS[i]}; break ;;
    esac
  done
  case $prev in
    --config|--output|-o|--cwd|--watch)
      COMPREPLY=($(compgen -f -- "$cur")); return ;;
    --id)
      COMPREPLY=($(compgen -W "$(@ids@)" -- "$cur")); return ;;
    --strategy)
      COMPREPLY=($(compgen -W "@strategies@" -- "$cur")); return ;;
    --name|--timeout|--instances|--start-port|--common-port|--cmd|--env) return ;;
  esac
  case $command in
@options@  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$options @shared@" -- "$cur"))
    return
  fi
  case $command in
    "") COMPREPLY=($(compgen -W "@commands@" -- "$cur")) ;;
    @both@) COMPREPLY=($(compgen -f -- "$cur")
        $(compgen -W "all $(@ids@)" -- "$cur")) ;;
    @takes-id@) COMPREPLY=($(compgen -W "all $(@ids@)" -- "$cur")) ;;
    @takes-file@) COMPREPLY=($(compgen -f -- "$cur")) ;;
    @takes-command@) COMPREPLY=($(compgen -W "@commands@" -- "$cur")) ;;
    @takes-shell@) COMPREPLY=($(compgen -W "bash zsh fish" -- "$cur")) ;;
  esac
}
complete -o filenames -F _pup pup
)--";

constexpr std::string_view zsh_template = R"--(#compdef pup
# zsh completion for pup
_pup() {
  local -a commands options
  local command= previous=${words[CURRENT-1]}
  local i
  for ((i = 2; i < CURRENT; i++)); do
    case ${words[i]} in
      --name|--config|--timeout|--id|--instances|--output|-o) ((i++)) ;;
      -*) ;;
      *) command=${words[i]}; break ;;
    esac
  done
  commands=(
@described@  )
  options=(@shared@)
  case $command in
@options@  esac
  case $previous in
    --config|--output|-o|--cwd|--watch) _files; return ;;
    --id) compadd -- $(@ids@); return ;;
    --strategy) compadd @strategies@; return ;;
    --name|--timeout|--instances|--start-port|--common-port|--cmd|--env) return ;;
  esac
  if [[ ${words[CURRENT]} == -* ]]; then
    compadd -- $options
    return
  fi
  case $command in
    "") _describe command commands ;;
    @both@) compadd -- all $(@ids@); _files ;;
    @takes-id@) compadd -- all $(@ids@) ;;
    @takes-file@) _files ;;
    @takes-command@) _describe command commands ;;
    @takes-shell@) compadd bash zsh fish ;;
  esac
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _pup "$@"
else
  compdef _pup pup
fi
)--";

using texts = std::map<std::string, std::string, std::less<>>;

// Replaces each @name@.
std::string filled(std::string_view text, const texts& values) {
  std::string result;
  while (!text.empty()) {
    const auto begin = text.find('@');
    result += text.substr(0, begin);
    if (begin == std::string_view::npos)
      break;
    text.remove_prefix(begin + 1);
    const auto end = text.find('@');
    const auto value =
        end == text.npos ? values.end() : values.find(text.substr(0, end));
    if (value == values.end()) {
      result += '@';  // of the shell: "$@"
      continue;
    }
    result += value->second;
    text.remove_prefix(end + 1);
  }
  return result;
}

std::string names(std::string_view separator) {
  std::string result;
  for (const auto& x : all_commands())
    result.append(result.empty() ? "" : separator).append(x.name);
  return result;
}

// Names of all whose words are of one kind, as a pattern of `case`.
std::string names_of(char kind) {
  std::string result;
  for (const auto& x : all_commands())
    if (x.words == kind)
      result.append(result.empty() ? "" : "|").append(x.name);
  return result;
}

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> result;
  while (!text.empty()) {
    const auto end = std::min(text.find(' '), text.size());
    if (end > 0)
      result.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return result;
}

texts shared_values() {
  return {{"ids", std::string{list_ids}},
          {"strategies", std::string{strategies}},
          {"shared", std::string{common_options()}},
          {"commands", names(" ")},
          {"both", names_of('b')},
          {"takes-id", names_of('i')},
          {"takes-file", names_of('f')},
          {"takes-command", names_of('c')},
          {"takes-shell", names_of('s')}};
}

std::string bash_script() {
  auto values = shared_values();
  for (const auto& x : all_commands())
    if (!x.options.empty())
      values["options"]
          .append("    ")
          .append(x.name)
          .append(") options=\"")
          .append(x.options)
          .append("\" ;;\n");
  return filled(bash_template, values);
}

std::string zsh_script() {
  auto values = shared_values();
  for (const auto& x : all_commands()) {
    std::string summary;
    for (const auto c : x.summary)
      summary += c == ':' ? "\\:" : c == '\'' ? "'\\''" : std::string(1, c);
    values["described"] +=
        "    '" + std::string{x.name} + ':' + summary + "'\n";
    if (!x.options.empty())
      values["options"]
          .append("    ")
          .append(x.name)
          .append(") options+=(")
          .append(x.options)
          .append(") ;;\n");
  }
  return filled(zsh_template, values);
}

std::string fish_script() {
  std::string result = "# fish completion for pup\nfunction __pup_ids\n    "
                       + std::string{list_ids} + "\nend\ncomplete -c pup -f\n";
  for (const auto& x : all_commands()) {
    std::string summary;
    for (const auto c : x.summary)
      summary += c == '\'' ? "\\'" : std::string(1, c);
    result += "complete -c pup -n __fish_use_subcommand -a "
              + std::string{x.name} + " -d '" + summary + "'\n";
    const auto seen = "complete -c pup -n '__fish_seen_subcommand_from "
                      + std::string{x.name} + "' ";
    if (x.words == 'i' || x.words == 'b')
      result += seen + "-a 'all (__pup_ids)'\n";
    if (x.words == 'f' || x.words == 'b')
      result += seen + "-F\n";
    if (x.words == 'c')
      result += seen + "-a '" + names(" ") + "'\n";
    if (x.words == 's')
      result += seen + "-a 'bash zsh fish'\n";
    for (const auto option : split(x.options))
      result += seen + "-l " + std::string{option.substr(2)} + '\n';
  }
  for (const auto option : split(common_options()))
    result += "complete -c pup -l " + std::string{option.substr(2)}
              + (option == "--config" ? " -rF\n" : "\n");
  return result;
}

}  // namespace

std::variant<std::string, std::string_view> completion_script(
    std::string_view shell) {
  if (shell == "bash")
    return bash_script();
  if (shell == "zsh")
    return zsh_script();
  if (shell == "fish")
    return fish_script();
  return std::string_view{"bash, zsh, fish"};
}

}  // namespace pup
