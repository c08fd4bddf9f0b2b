package banger

// Locale is what a guest takes over from its host's user, where its image has nothing of its own.
type Locale struct {
	TimeZone string `json:"time_zone,omitempty"` // "Europe/Berlin"
	ZoneData []byte `json:"zone_data,omitempty"` // the zone in the format of tzfile(5), for images that know no zones
	Lang     string `json:"lang,omitempty"`      // "de_DE.UTF-8"
}
