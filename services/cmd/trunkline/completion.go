package main

import (
	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"
)

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

func (completionCommand) Help() string {
	return "The shell runs the script when it starts: then the tab key completes commands, flags and their values.\n\n" +
		"    bash: echo 'source <(trunkline completion bash)' >> ~/.bashrc\n" +
		"    zsh:  echo 'source <(trunkline completion zsh)' >> ~/.zshrc\n" +
		"    fish: trunkline completion fish > ~/.config/fish/completions/trunkline.fish\n\n" +
		"Example:\n\n    trunkline completion bash"
}

func (c *completionCommand) Run(k *kong.Context) error {
	k.Exit = func(int) {} // the library ends the process when it has printed the script; here run does
	return (&kongcompletion.Completion{Shell: c.Shell, Code: true}).Run(k)
}
