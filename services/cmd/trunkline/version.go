package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/trunkline-sms/trunkline/services/operator"
)

// version is set when a release is built: -ldflags "-X main.version=1.2.3".
var version = ""

// semantic is the version in the form that the engine's service list asks for.
func semantic() string {
	if version == "" {
		return "0.0.0-dev"
	}
	return version
}

type versionCommand struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (versionCommand) Help() string {
	return "Example:\n\n    trunkline version"
}

func (c *versionCommand) Run(t *operator.Terminal) error {
	commit := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	if c.JSON {
		return json.NewEncoder(t.Out).Encode(struct {
			Version string `json:"version"`
			Commit  string `json:"commit"`
			Go      string `json:"go"`
		}{semantic(), commit, runtime.Version()})
	}
	_, err := fmt.Fprintf(t.Out, "trunkline %s (commit %s, %s)\n", semantic(), commit, runtime.Version())
	return err
}
