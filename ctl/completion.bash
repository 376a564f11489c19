# SPDX-License-Identifier: Apache-2.0
# Completion of kybernatectl for bash.

# The options and verbs are taken from the program's own help, so they are never out of date.
_kybernatectl_options()
{
	kybernatectl help ${1:+"$1"} 2>/dev/null | sed -n 's/^ .* \(--[a-z]*\).*/\1/p'
}

_kybernatectl_verbs()
{
	kybernatectl help 2>/dev/null | sed -n '/^Verbs:/,/^$/s/^  \([a-z]*\) .*/\1/p'
}

# The checkpoints of the store, where the caller may ask for them.
_kybernatectl_refs()
{
	timeout 2 kybernatectl ${1:+--socket "$1"} list --quiet 2>/dev/null
}

_kybernatectl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev='' verb='' socket='' words='' i

	# readline cuts "--socket=PATH" into three words.
	((COMP_CWORD > 0)) && prev=${COMP_WORDS[COMP_CWORD - 1]}
	[[ $cur == = ]] && cur=''
	[[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD - 2]}

	# Which verb is it? Words that are an option's value do not count.
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--socket | -o | --output | -n | --namespace | -r | --ref | -t | --timeout | --id | \
			--stdout | --stderr)
			words=${COMP_WORDS[i]}
			[[ ${COMP_WORDS[i + 1]-} == = ]] && ((i++))
			((i++))
			[[ $words == --socket ]] && socket=${COMP_WORDS[i]-} ;;
		-*) ;;
		*) verb=${verb:-${COMP_WORDS[i]}} ;;
		esac
	done

	case $prev in
	-o | --output)
		mapfile -t COMPREPLY < <(compgen -W 'text json jsonl' -- "$cur")
		return ;;
	--socket | --stdout | --stderr)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-n | --namespace | -r | --ref | -t | --timeout | --id)
		COMPREPLY=()
		return ;;
	esac

	words=''
	case $cur,$verb in
	-*) words=$(_kybernatectl_options "$verb") ;;
	*, | *,help) words=$(_kybernatectl_verbs) ;;
	*,restore | *,inspect | *,delete) words=$(_kybernatectl_refs "$socket") ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _kybernatectl kybernatectl
