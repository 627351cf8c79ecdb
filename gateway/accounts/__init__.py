"""Several credentials of one provider: whose turn it is, and which of them are at rest because the provider has refused them."""
