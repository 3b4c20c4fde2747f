B
itm_logitsJK¼>¡‘@