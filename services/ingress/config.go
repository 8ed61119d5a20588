package ingress

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/config"
	"github.com/trunkline-sms/trunkline/services/ingress/api/releases"
)

// Config is what can be set about ingress.
type Config struct {
	BatchThreshold int           `yaml:"batch_threshold" doc:"Waiting messages from which on they are committed as one atomic batch; fewer go as pipelined singles. On a cluster, which gathers the syncs itself, 16 means never for reports, and messages always go together."`
	StopGrace      time.Duration `yaml:"stop_grace" doc:"How long requests in flight may take to finish when the server stops."`
	PublicURL      string        `yaml:"public_url" doc:"Address that everybody reaches the server at, as in https://sms.example.org, for the download links of app releases; empty: the one that a request was made to."`
	TrustedProxies []string      `yaml:"trusted_proxies" doc:"Addresses of proxies, alone or as in 10.0.0.0/8, whose X-Forwarded-Proto and X-Forwarded-Host say where a request was made to, and whose X-Forwarded-For says where it came from."`
	MaxDownloads   int           `yaml:"max_downloads" doc:"Most downloads of app releases at a time; what comes over it is told to try again."`
	DownloadRate   config.Size   `yaml:"download_rate" doc:"Most bytes a second of all downloads of app releases together, so that they leave room for messages; 0 is no limit."`
}

// DefaultConfig is right for one machine.
func DefaultConfig() Config {
	return Config{
		// Limit: from 16 waiting messages on they are one atomic batch (`ingress.batch_threshold`).
		// Used up by: nobody: it says how messages are stored, and not how many. Hurts: nobody.
		BatchThreshold: 16,
		// Limit: at a stop, requests that are under way have 4 s to finish (`ingress.stop_grace`). Beyond it: they are
		// cut off.
		// Used up by: requests that do not end, such as slow downloads. Hurts: only those requests.
		// Test: TestServeCutsOffAfterGrace.
		StopGrace:      4 * time.Second,
		TrustedProxies: []string{"127.0.0.0/8", "::1"},
		// Limit: 200 downloads at a time (`ingress.max_downloads`). Beyond it: 503 `too_many_downloads` with Retry-After.
		// Used up by: strangers who download slowly. Hurts: other downloads; messages go on. Test: TestDownload_Crowd.
		MaxDownloads: 200,
		// Limit: all downloads together have 32 MiB a second (`ingress.download_rate`). Beyond it: they take longer.
		// Used up by: any stranger who downloads. Hurts: other downloads; messages go on. Test: TestWriter_Pace.
		DownloadRate: 32 << 20,
	}
}

// Check says what is wrong with the settings.
func (c Config) Check() error {
	if c.BatchThreshold < 1 {
		return errors.New("batch_threshold: want at least 1")
	}
	if c.StopGrace <= 0 {
		return errors.New("stop_grace: want more than 0")
	}
	if c.PublicURL != "" {
		u, err := url.Parse(c.PublicURL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("public_url: want an address as in https://sms.example.org, not %q", c.PublicURL)
		}
	}
	if _, err := c.proxies(); err != nil {
		return err
	}
	if c.MaxDownloads < 1 {
		return errors.New("max_downloads: want at least 1")
	}
	if c.DownloadRate < 0 {
		return errors.New("download_rate: want 0 or more")
	}
	return nil
}

func (c Config) proxies() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range c.TrustedProxies {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			var one netip.Addr
			if one, err = netip.ParseAddr(text); err == nil {
				prefix, err = one.Prefix(one.BitLen())
			}
		}
		if err != nil {
			return nil, fmt.Errorf("trusted_proxies: want an address, or several as in 10.0.0.0/8, not %q", text)
		}
		all = append(all, prefix)
	}
	return all, nil
}

// links are how download links begin. The settings have been checked.
func (c Config) links() releases.Links {
	proxies, _ := c.proxies()
	return releases.Links{Public: c.PublicURL, Proxies: proxies}
}
