# The commands of this repository. `make` lists them.

GO           ?= go
MODULES      := streams pkg services
PACKAGES     := $(MODULES:%=./%/...)
LINT_VERSION := v2.15.0
LINT         := bin/golangci-lint-$(LINT_VERSION)
TEST_LOG     := $(CURDIR)/bin/test.log
FUZZTIME     ?= 10s
# Parts in processes of their own wait for claims and leases to run out, for minutes: make apart.
APART        := ^TestApart
# So do nodes that stand still or are away, and networks that stop: make cluster-test.
CLUSTER      := ^TestCluster_(NodeStandsStill|Away|Late)
# They wait the longest, so they begin first, and the others run beside them.
SLOWEST      := ./services/test/e2e
E2E          := $(GO) test ./services/test/e2e -count=1 -timeout 0 -v $(if $(SEED),-seed $(SEED))
# Tests whose short form takes fewer accounts, messages and bytes than are promised.
MANY         := TestStop$$|TestStop_AtOnce|TestRelease_(CutOff|Stop)|TestSenders_(Scheduled|Priority)|TestTooManyLeases|TestCost_Backlog|TestRelease_CrowdMemory
# Of the end-to-end tests, those that do much at once in one process: the others wait for processes.
RACE_E2E     := TestOrder|TestLimit|TestIdempotency

# Of all others, those that the race detector makes take the longest, and that fold, read files or compute in one goroutine.
RACE_SKIP    := ^Test(Start_FlippedBit|Start_LastBlockHoldsNothing|Weight|Decide_Answers|EveryInterleavingFoldsToTheSame|DamagedMessagesHideNothing|Unreadable_Bounded|Forget_ManyMarks|StatesPage|LargeGroupsComeInParts|MessagesAreForgotten)$$

.DEFAULT_GOAL := help
.PHONY: help run demo bench build test race race-short simulate crash powerloss overload hostile memory many crowd apart cluster cluster-test cluster-suite throughput planted long mutate fuzz golden lint vet fmt fmt-check tidy tidy-check ci

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## everything in one process: HTTP on 127.0.0.1:8080, data in ./data
	$(GO) run ./services/cmd/trunkline serve

demo: ## a server, senders and phones for a look around
	$(GO) run ./services/cmd/trunkline demo

bench: ## measure the product on this machine (some minutes; docs/performance.md)
	$(GO) run ./services/cmd/trunkline bench

build: ## the binary into bin/
	$(GO) build -trimpath -o bin/ ./services/cmd/...

test: ## all tests of all modules; then no secret may be in their logs, and what was done and skipped
	@mkdir -p bin && : > $(TEST_LOG)
	TRUNKLINE_TEST_LOG=$(TEST_LOG) $(GO) test -timeout 30m -skip '$(APART)|$(CLUSTER)' $(TESTFLAGS) $(SLOWEST) work
	@scripts/log-scan $(TEST_LOG)
	@grep -a -e '^COUNTED' -e '^SKIPPED' $(TEST_LOG) || true

race: ## the tests with the race detector (needs a C compiler)
	$(GO) test -race $(TESTFLAGS) $$($(GO) list $(PACKAGES) | grep -v -e services/test/e2e -e lab/bench)
	$(GO) test -race $(TESTFLAGS) ./services/test/e2e -run '$(RACE_E2E)'

race-short: ## the same without what takes long under the detector and has few goroutines of ours; part of make ci
	$(GO) test -race -skip '$(RACE_SKIP)' $(TESTFLAGS) ./services/dispatcher $$($(GO) list $(PACKAGES) | grep -v -e services/test/e2e -e services/test/mutate -e services/lab -e services/cmd -e services/accounts -e pkg/apk -e services/dispatcher$$)
	$(GO) test -race $(TESTFLAGS) ./services/test/e2e -run '$(RACE_E2E)'

simulate: ## the laws in simulated time, with new seeds for FOR (10m); SEED=n replays one
	$(GO) test ./services/test/simulation -run TestLawsHold -count=1 -timeout 0 -v -fresh -for $(or $(FOR),10m) $(if $(SEED),-seed $(SEED)) | grep -v '^=== RUN\|^    --- PASS'

crash: ## kill -9 of the real server in bursts, ROUNDS (5) in each of the ways
	$(E2E) -run TestCrash -rounds $(or $(ROUNDS),5)

powerloss: ## power cuts under the real server, ROUNDS (20) in each of the ways (takes root)
	$(E2E) -run TestPowerLoss -rounds $(or $(ROUNDS),20)

overload: ## ten times what the server accepts, for FOR (1m)
	$(E2E) -run TestOverload -overload $(or $(FOR),1m)

hostile: ## attackers beside a good account, for FOR (10m); ONLY=polls-named,guesses: those alone
	$(E2E) -run TestHostile -hostile $(or $(FOR),10m) $(if $(ONLY),-only $(ONLY))

memory: ## five hundred senders of what takes the most memory, for FOR (1m)
	$(E2E) -run TestMemory -greedy $(or $(FOR),1m)

many: ## as many accounts, messages and bytes as are promised
	$(E2E) -run '$(MANY)' -long

crowd: ## what posts lose beside many downloads, for FOR (4s) each time; a measurement
	$(E2E) -run TestRelease_CrowdSenders -crowd $(or $(FOR),4s)

apart: ## two dispatchers, two ingresses and quota with a standby, stopped and killed (minutes)
	$(E2E) -run '$(APART)'

cluster: ## three nodes and two of each part on 127.0.0.1, until Ctrl-C
	scripts/cluster

cluster-test: ## every process of a cluster killed in turn and KILLS (10) by chance; nodes still and away for OUTAGE (30s)
	$(E2E) -run '^TestCluster' -chaos $(or $(KILLS),10) -outage $(or $(OUTAGE),30s)

cluster-suite: ## the end-to-end tests that run everywhere, on a cluster
	$(E2E) -run 'TestAccess|TestGolden|TestIdempotency_Concurrent|TestLimit|TestOrder_(OnePhone|ManyPhones)|TestSenders_(Mixed|Apart|SameID)' -cluster

throughput: ## what 1, 2 and 4 ingresses of a cluster on this machine accept
	$(E2E) -run TestCluster_Throughput -throughput $(or $(FOR),10s)

planted: ## build each known bug in, and see that the tests find it
	scripts/planted

long: ## the long form of everything, one after the other (hours); LONG="crash apart": those alone
	scripts/long $(or $(LONG),race simulate crash powerloss overload hostile memory many apart cluster-test cluster-suite planted fuzz)

mutate: ## change PKG (./pkg/bus) in N (300) small ways picked by SEED (1), and list what no test notices; TESTS (RUN) try too, AGAIN=output only what that left, QUICK=3s
	$(GO) run ./services/test/mutate -n $(or $(N),300) -seed $(or $(SEED),1) -tests "$(TESTS)" -run "$(RUN)" -quick $(or $(QUICK),0) -again "$(AGAIN)" $(PKG)

fuzz: ## each fuzz target for FUZZTIME (10s)
	scripts/fuzz $(FUZZTIME)

golden: ## write the golden files again; look at the difference before you commit it
	scripts/golden

lint: $(LINT) ## golangci-lint, built into bin/ the first time (takes minutes)
	$(LINT) run $(PACKAGES)

$(LINT):
	GOBIN=$(CURDIR)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv bin/golangci-lint $@

vet: ## go vet
	$(GO) vet work

fmt: ## format the code
	gofmt -s -w $(MODULES)

fmt-check: ## fail if something is not formatted
	@bad=$$(gofmt -s -l $(MODULES)); [ -z "$$bad" ] || { echo "not formatted, run make fmt:"; echo "$$bad"; exit 1; }

tidy: ## tidy every go.mod
	@set -e; for m in $(MODULES); do (cd $$m && $(GO) mod tidy); done

tidy-check: ## fail if a go.mod or go.sum is not tidy
	@set -e; for m in $(MODULES); do (cd $$m && $(GO) mod tidy -diff) || { echo "$$m is not tidy, run make tidy"; exit 1; }; done

ci: ## what has to pass before a merge
	.ci/run
