const v = require('left'); console.log(v, process.env.NODE_ENV);
